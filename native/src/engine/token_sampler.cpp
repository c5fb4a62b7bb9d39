#include "token_sampler.h"

#include <algorithm>

#include "../forest/random.h"

namespace tempora {
namespace {

// Logits in memory at once, at most.
constexpr std::int64_t kLogitsBytes = std::int64_t{64} << 20;

bool same(const SamplingOptions& a, const SamplingOptions& b) {
  return a.temperature == b.temperature && a.top_k == b.top_k && a.top_p == b.top_p;
}

// Rows that follow each other and are sampled alike, in one call of the backend.
void sample_chunk(Backend& backend, const Matrix& logits, const SampledRow* rows, std::int32_t* tokens,
                  float* log_probs) {
  for (std::int64_t begin = 0; begin < logits.rows;) {
    std::int64_t end = begin + 1;
    while (end < logits.rows && same(rows[end].options, rows[begin].options)) ++end;
    std::vector<double> uniforms;
    for (std::int64_t row = begin; row < end; ++row) uniforms.push_back(uniform_of(rows[row].seed, rows[row].key));
    backend.sample(logits.row_range(begin, end - begin), rows[begin].options, uniforms.data(), tokens + begin,
                   log_probs + begin);
    begin = end;
  }
}

void tell_likely(Backend& backend, const Matrix& logits, const SampledRow* rows, const std::int32_t* tokens,
                 const float* log_probs, LikelyTokens& likely) {
  for (std::int64_t row = 0; row < logits.rows; ++row) {
    if (rows[row].likely == 0) continue;
    const std::vector<float> host = logits_on_host(backend, logits.row_range(row, 1));
    const std::size_t first = likely.ids.size();
    append_likely(host.data(), logits.cols, log_sum_exp(host.data(), logits.cols), rows[row].likely, likely);
    // One token has one log-prob, to the last bit.
    for (std::size_t i = first; i < likely.ids.size(); ++i) {
      if (likely.ids[i] == tokens[row]) likely.log_probs[i] = log_probs[row];
    }
  }
}

}  // namespace

double uniform_of(std::uint64_t seed, const SampleKey& key) {
  std::uint64_t bits = combine_key(mix64(seed), key.prompt);
  bits = combine_key(bits, static_cast<std::uint64_t>(key.sample));
  return unit_interval(combine_key(bits, static_cast<std::uint64_t>(key.position)));
}

SampledTokens sample_tokens(Engine::Impl& impl, const Matrix& x, const std::vector<SampledRow>& rows) {
  Backend& backend = *impl.backend;
  Arena& scratch = impl.decoder.scratch();
  const Parameters& parameters = impl.parameters;
  const Matrix normed = scratch.matrix(x.rows, x.cols, parameters.dtype());
  backend.rms_norm(x, parameters.data(parameters.final_norm()), impl.shape.norm_eps, normed, scratch.floats(x.rows));
  SampledTokens result{std::vector<std::int32_t>(rows.size()), std::vector<float>(rows.size()), {}};
  const std::int64_t vocabulary = impl.shape.vocab_size;
  const std::int64_t at_once = std::max<std::int64_t>(1, kLogitsBytes / (vocabulary * 4));
  for (std::int64_t begin = 0; begin < x.rows; begin += at_once) {
    const ArenaScope scope(scratch);
    const std::int64_t count = std::min(at_once, x.rows - begin);
    const Matrix logits = scratch.matrix(count, vocabulary, DType::f32);
    backend.row_product(normed.row_range(begin, count), parameters.weight(parameters.head()), logits, false);
    sample_chunk(backend, logits, rows.data() + begin, result.tokens.data() + begin, result.log_probs.data() + begin);
    tell_likely(backend, logits, rows.data() + begin, result.tokens.data() + begin, result.log_probs.data() + begin,
                result.likely);
  }
  return result;
}

}  // namespace tempora
