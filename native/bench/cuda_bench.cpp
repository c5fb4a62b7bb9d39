// The CUDA backend's kernels against the device's ceilings, which are measured first: a large bf16 product and a large
// copy. Random weights in the shapes of Llama-3.2-1B and 3.1-8B. Needs neither Bun nor oneDNN. cuda_bench [filter]:
// only measurements whose names contain it.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "cuda_measurements.h"
#include "forest/forest.h"

namespace {

using namespace tempora;

class Bench : CudaMeasurements {
 public:
  Bench(const std::string& filter, Ceilings ceilings) : CudaMeasurements(filter, ceilings) {}

  Ceilings ceilings();
  void head(std::int64_t rows, std::int64_t vocabulary, std::int64_t cols);
  void attention(std::int64_t tokens, const AttentionShape& shape, int siblings, int trees = 1);
  void adamw(std::int64_t size);
  void products(std::int64_t tokens, std::int64_t outputs, std::int64_t inputs);
  void adapter(std::int64_t tokens, std::int64_t cols, std::int64_t rank);
  void quantised(std::int64_t outputs, std::int64_t inputs);
  void row_product(std::int64_t rows, std::int64_t outputs, std::int64_t inputs);
  void row_products(std::int64_t rows, const std::vector<std::int64_t>& outputs, std::int64_t inputs);
  void cached_attention(int groups, int rows, int prompt, int own, const AttentionShape& shape);
  void elements(std::int64_t rows, std::int64_t cols);
  void attention_inputs(std::int64_t rows, const AttentionShape& shape, bool norm);
  void sample(std::int64_t rows, std::int64_t vocabulary, float spread);
};

Ceilings Bench::ceilings() {
  const std::int64_t n = 8192;
  const Matrix a = matrix(n, n, DType::bf16), b = matrix(n, n, DType::bf16), c = matrix(n, n, DType::bf16);
  const double seconds = best_seconds([&] { backend_.matmul(a, b, c, {.transpose_b = true}); });
  Ceilings found;
  found.flops = 2.0 * static_cast<double>(n * n * n) / seconds;
  const std::size_t bytes = std::size_t{2} << 30;
  const Buffer from = backend_.allocate(bytes, MemoryUse::workspace),
               to = backend_.allocate(bytes, MemoryUse::workspace);
  backend_.zero(from.data(), bytes);
  found.bytes = 2.0 * static_cast<double>(bytes) / best_seconds([&] { backend_.copy(to.data(), from.data(), bytes); });
  std::printf("ceilings: bf16 product of %lld %.1f TFLOP/s, copy of 2 GiB %.1f GB/s read and written\n",
              static_cast<long long>(n), found.flops * 1e-12, found.bytes * 1e-9);
  return found;
}

void Bench::head(std::int64_t rows, std::int64_t vocabulary, std::int64_t cols) {
  const Matrix hidden = matrix(rows, cols, DType::bf16);
  const auto weight = random_weight(vocabulary, cols);
  const Matrix d_hidden = matrix(rows, cols, DType::f32), d_weight = matrix(vocabulary, cols, DType::f32);
  float *log_prob = floats(rows), *lse = floats(rows), *coefficient = floats(rows);
  std::vector<std::int32_t> token, row_start{0};
  for (std::int32_t r = 0; r < rows; ++r) {
    token.push_back(static_cast<std::int32_t>(r * std::int64_t{7919} % vocabulary));
    row_start.push_back(r + 1);
  }
  const Edges edges{rows, ints(token), ints(row_start)};
  const double product = 2.0 * static_cast<double>(rows) * static_cast<double>(vocabulary) * static_cast<double>(cols);
  const double read = static_cast<double>(hidden.bytes() + weight->storage.bytes());
  const std::string shape =
      " T=" + std::to_string(rows) + " V=" + std::to_string(vocabulary) + " D=" + std::to_string(cols);
  const auto forward = [&] { backend_.head_forward(hidden, *weight, edges, log_prob, lse, Matrix{}); };
  report("head forward" + shape, product, read, forward);
  // 6TDV: what is computed twice is no work that must be.
  report("head forward + backward" + shape, 3 * product, read + 2.0 * static_cast<double>(d_weight.bytes()), [&] {
    forward();
    backend_.head_backward(hidden, *weight, edges, coefficient, lse, Matrix{}, d_hidden, d_weight, true);
  });
  const auto bytes = static_cast<std::int64_t>(backend_.kept_logits_bytes(rows, vocabulary, DType::bf16));
  const Matrix kept{matrix(1, (bytes + 1) / 2, DType::bf16).data, DType::bf16, rows, vocabulary};
  report("head forward + backward, logits kept" + shape, 3 * product,
         read + static_cast<double>(kept.bytes()) * 4 + 2.0 * static_cast<double>(d_weight.bytes()), [&] {
           backend_.head_forward(hidden, *weight, edges, log_prob, lse, kept);
           backend_.head_backward(hidden, *weight, edges, coefficient, lse, kept, d_hidden, d_weight, true);
         });
  buffers_.clear();
}

// Trees of that many tokens each: a prompt of half of them with `siblings` continuations, or a single sequence where
// there are none.
void Bench::attention(std::int64_t tree_tokens, const AttentionShape& shape, int siblings, int trees) {
  const std::int64_t tokens = tree_tokens * trees;
  Forest forest;
  forest.tokens.assign(static_cast<std::size_t>(tokens), 0);
  forest.node_start = {0};
  const std::int64_t prompt = siblings == 0 ? tree_tokens : tree_tokens / 2;
  const auto add = [&](std::int64_t end, std::int32_t parent) {
    forest.node_start.push_back(static_cast<std::int32_t>(end));
    forest.node_parent.push_back(parent);
    forest.node_scored.push_back(1);
  };
  for (int tree = 0; tree < trees; ++tree) {
    const std::int64_t first = tree * tree_tokens;
    add(first + prompt, -1);
    for (int s = 1; s <= siblings; ++s)
      add(first + prompt + (tree_tokens - prompt) * s / siblings, tree * (siblings + 1));
  }
  const ForestLayout layout = layout_of(forest);
  double visible = 0;  // (query, key) pairs
  for (std::int32_t t = 0; t < layout.tokens; ++t) visible += layout.position[t] + 1;

  const std::int64_t wide = std::int64_t{shape.heads} * shape.head_dim,
                     narrow = std::int64_t{shape.kv_heads} * shape.head_dim;
  const auto wide_matrix = [&] { return matrix(tokens, wide, DType::bf16); };
  const auto narrow_matrix = [&] { return matrix(tokens, narrow, DType::bf16); };
  const Matrix q = wide_matrix(), k = narrow_matrix(), v = narrow_matrix(), out = wide_matrix();
  const Matrix d_out = wide_matrix(), d_q = wide_matrix(), d_k = narrow_matrix(), d_v = narrow_matrix();
  float* lse = floats(tokens * shape.heads);
  const auto plan = backend_.plan_attention(layout);
  const double flops = 4.0 * visible * static_cast<double>(wide);
  const double bytes = static_cast<double>(q.bytes() + k.bytes() + v.bytes() + out.bytes());
  const std::string name = (trees == 1 ? std::string() : std::string(" ") + std::to_string(trees) + " trees,") +
                           " T=" + std::to_string(tree_tokens) + " C=" + std::to_string(shape.head_dim) +
                           (siblings == 0 ? ", causal" : ", " + std::to_string(siblings) + " continuations");
  report("attention forward" + name, flops, bytes, [&] { backend_.tree_attention(*plan, shape, q, k, v, out, lse); });
  report("attention backward" + name, 2.5 * flops, 2 * bytes,
         [&] { backend_.tree_attention_backward(*plan, shape, q, k, v, out, lse, d_out, d_q, d_k, d_v); });
  buffers_.clear();
}

void Bench::adamw(std::int64_t size) {
  const Matrix weight = matrix(1, size, DType::bf16), gradient = matrix(1, size, DType::f32);
  AdamWOptions options;
  options.learning_rate = 1e-6;
  for (const MomentsFormat format : {MomentsFormat::f32, MomentsFormat::blocks8}) {
    Moments moments = backend_.make_moments(format, size);
    const bool eight = format == MomentsFormat::blocks8;
    // Weight and moments are read and written, the gradient is read.
    report("adamw of " + std::to_string(size >> 20) + " Mi" + (eight ? ", moments in 8 bits" : ""), 0,
           static_cast<double>(size) * (2 * 2 + 2 * 2 * (eight ? 1 : 4) + 4), [&] {
             backend_.adamw({{weight, gradient, &moments}}, options);
           });
  }
  report("sum of squares of " + std::to_string(size >> 20) + " Mi", 0, static_cast<double>(size) * 4,
         [&] { backend_.sum_of_squares({gradient}); });
  buffers_.clear();
}

// Those of a linear module in training: cuBLASLt's.
void Bench::products(std::int64_t tokens, std::int64_t outputs, std::int64_t inputs) {
  const Matrix x = matrix(tokens, inputs, DType::bf16), d_x = matrix(tokens, inputs, DType::bf16);
  const Matrix out = matrix(tokens, outputs, DType::bf16), d_weight = matrix(outputs, inputs, DType::f32);
  const auto weight = random_weight(outputs, inputs);
  const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(outputs) * static_cast<double>(inputs);
  const auto moved = static_cast<double>(x.bytes() + out.bytes());
  const auto numbers = static_cast<double>(weight->storage.bytes());
  const std::string name =
      "product " + std::to_string(tokens) + " x " + std::to_string(outputs) + " x " + std::to_string(inputs);
  report(name, flops, moved + numbers, [&] { backend_.product(x, *weight, out, false); });
  const Matrix residual = matrix(tokens, outputs, DType::f32), sum = matrix(tokens, outputs, DType::f32);
  report(name + ", onto a residual", flops, static_cast<double>(x.bytes() + residual.bytes() + sum.bytes()) + numbers,
         [&] {
           backend_.residual_product(x, {*weight, sum}, residual);
         });
  report(name + ", gradient of x", flops, moved + numbers,
         [&] { backend_.transposed_product(out, *weight, d_x, false); });
  report(name + ", gradient of the weight", flops, moved + 4 * numbers,
         [&] { backend_.gradient_product(out, x, d_weight, true); });
  buffers_.clear();
}

// An adapter's products with a wide side of `cols`: each reads that once, or reads and writes it.
void Bench::adapter(std::int64_t tokens, std::int64_t cols, std::int64_t rank) {
  const Matrix x = matrix(tokens, cols, DType::bf16), d_x = matrix(tokens, cols, DType::f32);
  const Matrix u = matrix(tokens, rank, DType::f32), gradient = matrix(rank, cols, DType::f32);
  auto weight = backend_.make_weight(WeightFormat::f32, rank, cols),
       up = backend_.make_weight(WeightFormat::f32, cols, rank);
  backend_.copy(weight->storage.data(), gradient.data, gradient.bytes());
  backend_.copy(up->storage.data(), gradient.data, gradient.bytes());
  const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(cols) * static_cast<double>(rank);
  const auto bytes = static_cast<double>(x.bytes());
  const std::string shape =
      std::string(" ") + std::to_string(tokens) + " x " + std::to_string(cols) + ", rank " + std::to_string(rank);
  const auto report_of = [&](const std::string& name, double moved, const std::function<void()>& work) {
    report(name + shape, flops, moved, work);
  };
  report_of("narrow product", bytes, [&] { backend_.narrow_product(x, {}, *weight, false, 2, u); });
  report_of("narrow product with dropout", bytes,
            [&] { backend_.narrow_product(x, {.rate = 0.05f, .key = 3, .first_row = 0}, *weight, false, 2, u); });
  report_of("narrow product, transposed", bytes, [&] { backend_.narrow_product(x, {}, *up, true, 2, u); });
  report_of("narrow gradient", bytes, [&] { backend_.narrow_gradient(x, {}, u, false, gradient); });
  report_of("added to a wide bf16", 2 * bytes, [&] { backend_.row_product(u, *up, x, true); });
  report_of("added to a wide f32 gradient", 4 * bytes, [&] { backend_.narrow_input_gradient(u, *weight, {}, d_x); });
  buffers_.clear();
}

// A row's product with an NF4 weight, most of which is dequantising it: codes are read, numbers written and read.
void Bench::quantised(std::int64_t outputs, std::int64_t inputs) {
  const Matrix x = matrix(1, inputs, DType::bf16), out = matrix(1, outputs, DType::bf16);
  const auto weight = backend_.make_weight(WeightFormat::nf4, outputs, inputs);
  backend_.zero(weight->storage.data(), weight->storage.bytes());
  const auto size = static_cast<double>(outputs * inputs);
  report("row product 1 x " + std::to_string(outputs) + " x " + std::to_string(inputs) + ", NF4", 2 * size, 4.5 * size,
         [&] { backend_.row_product(x, *weight, out, false); });
  buffers_.clear();
}

void Bench::row_product(std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  const Matrix x = matrix(rows, inputs, DType::bf16), out = matrix(rows, outputs, DType::bf16);
  const auto weight = random_weight(outputs, inputs);
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(outputs) * static_cast<double>(inputs);
  report("row product " + std::to_string(rows) + " x " + std::to_string(outputs) + " x " + std::to_string(inputs),
         flops, static_cast<double>(x.bytes() + weight->storage.bytes() + out.bytes()),
         [&] { backend_.row_product(x, *weight, out, false); });
  buffers_.clear();
}

// Those of one x in one launch, and beside it in one each.
void Bench::row_products(std::int64_t rows, const std::vector<std::int64_t>& outputs, std::int64_t inputs) {
  const Matrix x = matrix(rows, inputs, DType::bf16);
  std::vector<std::unique_ptr<Weight>> weights;
  std::vector<WeightProduct> products;
  std::string name = "row products " + std::to_string(rows) + " x ";
  auto bytes = static_cast<double>(x.bytes());
  double numbers = 0;
  for (const std::int64_t width : outputs) {
    weights.push_back(random_weight(width, inputs));
    products.push_back({*weights.back(), matrix(rows, width, DType::bf16)});
    bytes += static_cast<double>(weights.back()->storage.bytes() + products.back().out.bytes());
    numbers += static_cast<double>(weights.back()->size());
    name += (weights.size() == 1 ? "" : " + ") + std::to_string(width);
  }
  name += " x " + std::to_string(inputs);
  const double flops = 2.0 * static_cast<double>(rows) * numbers;
  report(name + ", together", flops, bytes, [&] { backend_.row_products(x, products); });
  report(name + ", apart", flops, bytes, [&] {
    for (const WeightProduct& one : products) backend_.row_product(x, one.weight, one.out, false);
  });
  buffers_.clear();
}

// `groups` prompts with `rows` continuations each.
void Bench::cached_attention(int groups, int rows, int prompt, int own, const AttentionShape& shape) {
  CachePaths paths;
  const std::int32_t prompt_pages = (prompt + kCachePage - 1) / kCachePage,
                     own_pages = (own + kCachePage - 1) / kCachePage;
  std::int32_t pages = 0;
  const auto add_pages = [&](std::int32_t first, std::int32_t count, std::int32_t length) {
    paths.segments.push_back({static_cast<std::int32_t>(paths.pages.size()), length});
    for (std::int32_t i = 0; i < count; ++i) paths.pages.push_back(first + i);
  };
  for (int group = 0; group < groups; ++group) {
    const std::int32_t first = std::exchange(pages, pages + prompt_pages);
    for (int row = 0; row < rows; ++row) {
      paths.row_segment.push_back(static_cast<std::int32_t>(paths.segments.size()));
      add_pages(first, prompt_pages, prompt);
      add_pages(std::exchange(pages, pages + own_pages), own_pages, own);
      paths.position.push_back(prompt + own - 1);
      paths.group.push_back(group);
    }
  }
  paths.row_segment.push_back(static_cast<std::int32_t>(paths.segments.size()));
  const auto plan = backend_.plan_cache(std::move(paths));
  const std::int64_t narrow = std::int64_t{shape.kv_heads} * shape.head_dim, all_rows = std::int64_t{groups} * rows;
  const Matrix keys = matrix(std::int64_t{pages} * kCachePage, narrow, DType::bf16);
  const Matrix values = matrix(keys.rows, narrow, DType::bf16);
  const Matrix q = matrix(all_rows, std::int64_t{shape.heads} * shape.head_dim, DType::bf16);
  const Matrix out = matrix(q.rows, q.cols, DType::bf16);
  report("cached attention " + std::to_string(groups) + " x " + std::to_string(rows) + " rows, " +
             std::to_string(prompt) + " + " + std::to_string(own) + " keys, C=" + std::to_string(shape.head_dim),
         4.0 * static_cast<double>(q.size()) * (prompt + own), static_cast<double>(keys.bytes() + values.bytes()),
         [&] { backend_.cached_attention(*plan, shape, q, keys.data, values.data, out); });
  buffers_.clear();
}

// Norms, rotary embedding of heads of 64, SwiGLU and the gradient of an embedding of 128256 tokens.
void Bench::elements(std::int64_t rows, std::int64_t cols) {
  const std::string shape = std::string(" ") + std::to_string(rows) + " x " + std::to_string(cols);
  const Matrix x = matrix(rows, cols, DType::f32), d_x = matrix(rows, cols, DType::f32);
  const Matrix a = matrix(rows, cols, DType::bf16), b = matrix(rows, cols, DType::bf16);
  const Matrix c = matrix(rows, cols, DType::bf16), weight = matrix(1, cols, DType::bf16);
  float *rstd = floats(rows), *d_weight = floats(cols);
  const auto wide = static_cast<double>(x.bytes()), narrow = static_cast<double>(a.bytes());
  report("rms norm" + shape, 0, wide + narrow, [&] { backend_.rms_norm(x, weight.data, 1e-5f, a, rstd); });
  // x and d_y are read, d_x is read and written.
  report("rms norm backward" + shape, 0, 4 * wide,
         [&] { backend_.rms_norm_backward(x, weight.data, DType::bf16, rstd, x, d_x, d_weight); });
  report("rms norm backward, its result and a rounded gradient" + shape, 0, 4 * wide + 2 * narrow, [&] {
    backend_.recomputed_norm_backward({x, weight.data, 1e-5f, rstd, x, a, d_x, d_weight, b});
  });
  report("head norm backward" + shape, 0, 3 * narrow,
         [&] { backend_.head_norm_backward(a, 128, weight.data, d_x.f32(), b, c, d_weight); });
  report("head norm" + shape, 0, 2 * narrow, [&] { backend_.head_norm(a, 128, weight.data, 1e-5f, b, d_x.f32()); });
  report("bias" + shape, 0, 2 * narrow, [&] { backend_.add_bias(a, weight.data, DType::bf16); });
  report("bias backward" + shape, 0, narrow, [&] { backend_.bias_backward(a, d_weight); });
  report("cast of f32" + shape, 0, wide + narrow, [&] { backend_.cast(x, a); });
  report("all finite" + shape, 0, wide, [&] { backend_.all_finite(x); });
  report("dropout" + shape, 0, wide + narrow, [&] { backend_.dropout(a, {.rate = 0.1f, .key = 1}, d_x); });
  report("swiglu" + shape, 0, 3 * narrow, [&] { backend_.swiglu(a, b, c); });
  report("swiglu backward" + shape, 0, 5 * narrow, [&] { backend_.swiglu_backward(a, b, c, a, b, Matrix{}); });
  std::vector<std::int32_t> positions, tokens;
  for (std::int32_t t = 0; t < rows; ++t) {
    positions.push_back(t);
    tokens.push_back(static_cast<std::int32_t>(t * std::int64_t{7919} % 2503));  // each comes some times
  }
  const std::int32_t *device_positions = ints(positions), *device_tokens = ints(tokens);
  const float* frequencies = floats(32);
  report("rope" + shape, 0, 2 * narrow, [&] { backend_.rope(c, 64, device_positions, frequencies, false); });
  const Matrix d_table = matrix(128256, cols, DType::f32);
  report("embedding backward" + shape, 0, wide + 2.0 * 2503 * static_cast<double>(cols) * 4,
         [&] { backend_.embed_backward(device_tokens, x, d_table); });
  buffers_.clear();
}

// Rotation and the way into the cache, with a norm of each head where `norm` says so.
void Bench::attention_inputs(std::int64_t rows, const AttentionShape& shape, bool norm) {
  const auto heads = [&](int count) {
    HeadRows of;
    of.out = matrix(rows, std::int64_t{count} * shape.head_dim, DType::bf16);
    return of;
  };
  AttentionInputs inputs;
  inputs.q = heads(shape.heads);
  inputs.k = heads(shape.kv_heads);
  inputs.v = heads(shape.kv_heads);
  for (HeadRows* of : {&inputs.q, &inputs.k}) {
    if (!norm) continue;
    of->raw = matrix(rows, of->out.cols, DType::bf16);
    of->norm = matrix(1, shape.head_dim, DType::bf16).data;
    of->rstd = floats(rows * of->out.cols / shape.head_dim);
  }
  std::vector<std::int32_t> places;
  for (std::int32_t row = 0; row < rows; ++row) places.push_back(row);
  inputs.shape = shape;
  inputs.norm_eps = 1e-5f;
  inputs.positions = inputs.cache.slots = ints(places);
  inputs.frequencies = floats(shape.head_dim / 2);
  const std::int64_t pages = (rows + kCachePage - 1) / kCachePage;
  inputs.cache.keys = matrix(pages * kCachePage, inputs.k.out.cols, DType::bf16).data;
  inputs.cache.values = matrix(pages * kCachePage, inputs.k.out.cols, DType::bf16).data;
  // q is read and written; keys are that twice, values once.
  const auto bytes = static_cast<double>(2 * inputs.q.out.bytes() + 5 * inputs.k.out.bytes());
  const std::string name = std::string(" ") + std::to_string(rows) + " rows, " + std::to_string(shape.heads) +
                           " heads over " + std::to_string(shape.kv_heads) + ", C=" + std::to_string(shape.head_dim) +
                           (norm ? ", normed" : "");
  report("attention inputs" + name, 0, bytes, [&] { backend_.attention_inputs(inputs); });
  report("attention inputs one after another" + name, 0, bytes, [&] { backend_.Backend::attention_inputs(inputs); });
  buffers_.clear();
}

// Logits of that spread (a standard deviation); results stay on the device.
void Bench::sample(std::int64_t rows, std::int64_t vocabulary, float spread) {
  const Matrix logits = matrix(rows, vocabulary, DType::f32);
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> host(static_cast<std::size_t>(logits.size()));
  for (float& logit : host) logit = normal(generator);
  backend_.copy_in(logits.data, host.data(), host.size() * sizeof(float));
  const std::vector<double> numbers(static_cast<std::size_t>(rows), 0.4);
  // A double has the room of two floats.
  auto* uniforms = reinterpret_cast<double*>(floats(2 * rows));
  backend_.copy_in(uniforms, numbers.data(), numbers.size() * sizeof(double));
  auto* tokens = reinterpret_cast<std::int32_t*>(floats(rows));
  float* log_probs = floats(rows);
  const auto report_with = [&](const std::string& name, const SamplingOptions& options) {
    report("sample " + std::to_string(rows) + " x " + std::to_string(vocabulary) + " spread " +
               std::to_string(static_cast<int>(spread)) + ", " + name,
           0, static_cast<double>(logits.bytes()),
           [&] { backend_.sample(logits, options, uniforms, tokens, log_probs); });
  };
  report_with("greedy", {0, 0, 1});
  report_with("whole", {1, 0, 1});
  report_with("top p 0.95", {1, 0, 0.95f});
  report_with("top k 50", {1, 50, 1});
  buffers_.clear();
}

}  // namespace

int main(int argc, char** argv) {
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) {
    std::printf("no CUDA device: nothing was measured (%s)\n", info.problem.c_str());
    return 77;
  }
  std::printf("%s\n", info.devices.front().c_str());
  const std::string filter = argc > 1 ? argv[1] : "";
  const Ceilings ceilings = Bench(filter, {}).ceilings();
  for (const std::int64_t cols : {2048, 4096}) Bench(filter, ceilings).head(8192, 128256, cols);
  for (const int siblings : {0, 2, 8}) Bench(filter, ceilings).attention(2048, {32, 8, 128, 0}, siblings);
  Bench(filter, ceilings).attention(2048, {32, 8, 64, 0}, 2);
  // A DPO step's of a small model.
  for (const int head_dim : {64, 128}) Bench(filter, ceilings).attention(1024, {32, 8, head_dim, 0}, 2, 8);
  for (const int siblings : {0, 8}) Bench(filter, ceilings).attention(8192, {32, 8, 128, 0}, siblings);
  Bench(filter, ceilings).attention(8192, {32, 8, 64, 0}, 0);
  Bench(filter, ceilings).adamw(std::int64_t{1} << 28);
  for (const auto& [outputs, inputs] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {2048, 2048}, {512, 2048}, {8192, 2048}, {2048, 8192}, {4096, 4096}, {14336, 4096}, {4096, 14336}}) {
    Bench(filter, ceilings).products(8192, outputs, inputs);
  }
  for (const std::int64_t cols : {2048, 8192}) Bench(filter, ceilings).adapter(8192, cols, 16);
  Bench(filter, ceilings).adapter(512, 2048, 16);
  Bench(filter, ceilings).adapter(8192, 14336, 64);
  for (const std::int64_t rows : {1, 8, 64, 512}) {
    Bench(filter, ceilings).row_product(rows, 2048, 2048);
    Bench(filter, ceilings).row_product(rows, 14336, 4096);
    Bench(filter, ceilings).row_products(rows, {2048, 512, 512}, 2048);
    Bench(filter, ceilings).row_products(rows, {8192, 8192}, 2048);
    Bench(filter, ceilings).row_products(rows, {4096, 1024, 1024}, 4096);
    Bench(filter, ceilings).row_products(rows, {14336, 14336}, 4096);
  }
  Bench(filter, ceilings).row_product(512, 128256, 2048);
  Bench(filter, ceilings).quantised(14336, 4096);
  Bench(filter, ceilings).cached_attention(64, 8, 512, 256, {32, 8, 64, 0});
  Bench(filter, ceilings).cached_attention(64, 8, 512, 256, {32, 8, 128, 0});
  Bench(filter, ceilings).cached_attention(1, 8, 512, 256, {32, 8, 64, 0});
  for (const std::int64_t cols : {2048, 4096}) Bench(filter, ceilings).elements(8192, cols);
  for (const std::int64_t rows : {8, 512, 8192}) {
    Bench(filter, ceilings).attention_inputs(rows, {32, 8, 64, 0}, false);
    Bench(filter, ceilings).attention_inputs(rows, {32, 8, 128, 0}, true);
  }
  for (const float spread : {1.0f, 4.0f}) Bench(filter, ceilings).sample(64, 128256, spread);
  return 0;
}
