// Moments in 8 bits and weights in 4 against bitsandbytes' own (test/oracles/quantization), GGUF's blocks against the
// gguf package's (test/oracles/gguf).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "backend/dynamic_map.h"
#include "backend/gguf_host.h"
#include "backend/nf4_host.h"
#include "test_support.h"

namespace tempora::test {
namespace {

std::string read_file(const std::string& name) {
  const std::string path = "test/oracles/" + name;
  std::ifstream file(path);
  expect(file.good(), path + " is missing: run the tests in the repository's folder");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Where the value of a key begins, the first after `from`.
std::size_t value_of(const std::string& json, const std::string& key, std::size_t from = 0) {
  const std::size_t at = json.find('"' + key + '"', from);
  expect(at != std::string::npos, "the oracle has no " + key);
  return json.find(':', at) + 1;
}

std::vector<double> numbers_at(const std::string& json, std::size_t at) {
  std::vector<double> numbers;
  at = json.find('[', at) + 1;
  const std::size_t end = json.find(']', at);
  while (at < end) {
    std::size_t used = 0;
    numbers.push_back(std::stod(json.substr(at, 40), &used));
    at = json.find_first_of(",]", at + used) + 1;
  }
  return numbers;
}

// Of the string after `at`.
std::vector<std::uint8_t> base64_of(const std::string& json, std::size_t at) {
  static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  at = json.find('"', at) + 1;
  std::vector<std::uint8_t> bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (; json[at] != '"' && json[at] != '='; ++at) {
    bits = bits << 6 | static_cast<std::uint32_t>(digits.find(json[at]));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<std::uint8_t>(bits >> count));
  }
  return bytes;
}

std::vector<std::uint8_t> base64_at(const std::string& json, std::size_t at) {
  return base64_of(json, value_of(json, "bytes", at));
}

std::vector<float> floats_at(const std::string& json, std::size_t at) {
  const std::vector<std::uint8_t> bytes = base64_at(json, at);
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

void check_maps() {
  const std::string json = read_file("quantization/blockwise8.json");
  for (const bool has_sign : {true, false}) {
    const DynamicMap& map = has_sign ? signed_dynamic_map() : unsigned_dynamic_map();
    const std::vector<double> want = numbers_at(json, value_of(json, has_sign ? "signed" : "unsigned"));
    expect(want.size() == 256, "the oracle's map has " + std::to_string(want.size()) + " entries");
    for (std::size_t i = 0; i < 256; ++i) {
      expect(std::abs(map.values[i] - want[i]) <= 2e-7 * std::abs(want[i]),
             "entry " + std::to_string(i) + " is " + std::to_string(map.values[i]));
      expect(map.code_of(map.values[i]) == i, "an entry has another code than its own");
    }
    Random random(3);
    for (int t = 0; t < 200'000; ++t) {
      const double size = std::pow(10.0, -8 * random.uniform());
      const float x = static_cast<float>(has_sign && t % 2 == 0 ? -size : size);
      const auto nearest = std::min_element(map.values, map.values + 256, [x](float a, float b) {
        return std::abs(static_cast<double>(a) - x) < std::abs(static_cast<double>(b) - x);
      });
      const double best = std::abs(static_cast<double>(*nearest) - x);
      expect(std::abs(static_cast<double>(map.values[map.code_of(x)]) - x) <= best * (1 + 1e-6) + 1e-12,
             std::to_string(x) + " has a code that is not the nearest");
    }
  }
}

// bitsandbytes searches its map a little coarser on a CPU: no code of ours is further from its value than theirs.
void check_quantising() {
  const std::string json = read_file("quantization/blockwise8.json");
  const auto backend = make_cpu_backend(2);
  std::size_t at = value_of(json, "cases");
  for (const bool first : {true, false}) {
    const std::vector<float> values = floats_at(json, value_of(json, "values", at));
    const std::vector<float> absmax = floats_at(json, value_of(json, "absmax", at));
    at = value_of(json, "dequantised", at);
    const std::vector<float> theirs = floats_at(json, at);
    // Enough of them for blocks to be used.
    std::vector<float> padded(5000);
    std::copy(values.begin(), values.end(), padded.begin());
    Moments moments = backend->make_moments(MomentsFormat::blocks8, 5000);
    backend->set_moments(
        moments, {first ? padded : std::vector<float>(5000), first ? std::vector<float>(5000) : padded, {}, {}});
    const HostMoments host = backend->get_moments(moments);
    const std::vector<float>& ours = first ? host.first : host.second;
    const std::vector<float>& scales = first ? host.first_scales : host.second_scales;
    std::size_t equal = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float scale = absmax[i / kMomentsBlock];
      if (i / kMomentsBlock + 1 < absmax.size()) expect(scales[i / kMomentsBlock] == scale, "a scale differs");
      equal += std::abs(ours[i] - theirs[i]) <= 1e-6f * scale ? 1 : 0;
      expect(std::abs(ours[i] - values[i]) <= std::abs(theirs[i] - values[i]) + 1e-6f * scale,
             "value " + std::to_string(i) + " is further from what it was than bitsandbytes' is");
    }
    expect(equal >= values.size() * 9 / 10, std::to_string(equal) + " values alone are bitsandbytes'");
  }
}

void check_steps(int tensor, double tolerance) {
  const std::string json = read_file("quantization/adamw8bit.json");
  std::size_t at = value_of(json, "start", value_of(json, "tensors"));
  for (int i = 0; i < tensor; ++i) at = value_of(json, "start", at);
  const std::vector<double> scales = numbers_at(json, value_of(json, "scales"));
  const std::vector<float> start = floats_at(json, at);
  const std::vector<float> gradient = floats_at(json, value_of(json, "gradient", at));
  std::size_t last = value_of(json, "parameter", value_of(json, "after", at));  // of the first step
  last = value_of(json, "parameter", last);
  const std::vector<float> want = floats_at(json, last);
  const auto count = static_cast<std::int64_t>(start.size());

  const auto backend = make_cpu_backend(2);
  Device device(*backend);
  const Tensor weight = device.upload(1, count, DType::f32, doubles(start));
  Moments moments = backend->make_moments(MomentsFormat::blocks8, count);
  AdamWOptions options;
  options.learning_rate = 1e-2;
  options.beta1 = numbers_at(json, value_of(json, "betas"))[0];
  options.beta2 = numbers_at(json, value_of(json, "betas"))[1];
  for (std::size_t step = 0; step < scales.size(); ++step) {
    std::vector<double> now(start.size());
    for (std::size_t i = 0; i < now.size(); ++i) {
      now[i] = gradient[(i + 17 * step) % now.size()] * scales[step];
    }
    options.step = static_cast<std::int64_t>(step) + 1;
    const test::Tensor gradients = device.upload(1, count, DType::f32, now);
    backend->adamw({{weight.matrix, gradients.matrix, &moments, 0.1, 0}}, options);
  }
  const std::vector<double> got = device.read(weight);
  double off = 0, moved = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    off += std::pow(got[i] - want[i], 2);
    moved += std::pow(want[i] - start[i], 2);
  }
  expect(std::sqrt(off / moved) < tolerance, "the steps differ by " + std::to_string(std::sqrt(off / moved)));
}

// IEEE half precision, in which the oracle keeps its weights.
float from_half(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return static_cast<float>((half & 0x8000) != 0 ? -size : size);
}

// Codes, their blocks' maxima and what they stand for.
void check_nf4() {
  const std::string json = read_file("quantization/nf4.json");
  std::size_t at = value_of(json, "cases");
  for (int i = 0; i < 5; ++i) {
    at = value_of(json, "weight", at);
    const std::vector<std::uint8_t> halves = base64_at(json, at);
    std::vector<float> weight;
    for (std::size_t j = 0; j < halves.size(); j += 2) {
      weight.push_back(from_half(static_cast<std::uint16_t>(halves[j] | halves[j + 1] << 8)));
    }
    const std::vector<double> shape = numbers_at(json, value_of(json, "shape", at));
    const std::size_t twice = value_of(json, "double", at);
    const std::vector<std::uint8_t> packed = base64_at(json, value_of(json, "packed", twice));
    const std::vector<std::uint8_t> maxima = base64_at(json, value_of(json, "absmax", twice));
    const std::vector<float> theirs = floats_at(json, value_of(json, "dequantised", twice));
    const std::vector<float> scales = floats_at(json, value_of(json, "absmax", value_of(json, "nested", twice)));
    const auto n = static_cast<std::int64_t>(weight.size());
    const Nf4Layout layout(n);
    const std::vector<std::uint8_t> storage = nf4_quantised(weight);
    expect(storage.size() == layout.bytes, "the storage has another size than its layout");
    expect(std::equal(storage.begin(), storage.begin() + (n + 1) / 2, packed.begin()), "the codes are others");
    const auto own_maxima = storage.begin() + static_cast<std::ptrdiff_t>(layout.maxima);
    expect(std::equal(maxima.begin(), maxima.end(), own_maxima), "the codes of the maxima are others");
    for (std::size_t block = 0; block < scales.size(); ++block) {
      float own;
      std::memcpy(&own, storage.data() + layout.scales + 4 * block, 4);
      expect(std::abs(own - scales[block]) <= 1e-6f * scales[block], "the scales of the maxima are others");
    }
    // Where rows end within a block, bitsandbytes 0.50 gives other numbers on a CPU than its codes stand for.
    if (static_cast<std::int64_t>(shape.back()) % kNf4Block != 0 &&
        static_cast<std::int64_t>(shape.back()) > kNf4Block) {
      continue;
    }
    expect_close("numbers", doubles(nf4_dequantised(storage.data(), n)), doubles(theirs), 1e-6);
  }
  const double bits = static_cast<double>(Nf4Layout(1 << 20).bytes) * 8 / (1 << 20);
  expect(bits < 4.13, "a number takes " + std::to_string(bits) + " bits");
}

// Every block type of the gguf package's oracle, by its numbers.
void check_gguf() {
  const std::string json = read_file("gguf/blocks.json");
  const std::map<std::string, WeightFormat> formats = {{"Q4_0", WeightFormat::q4_0}, {"Q4_1", WeightFormat::q4_1},
                                                       {"Q5_0", WeightFormat::q5_0}, {"Q5_1", WeightFormat::q5_1},
                                                       {"Q8_0", WeightFormat::q8_0}, {"Q4_K", WeightFormat::q4_k},
                                                       {"Q5_K", WeightFormat::q5_k}, {"Q6_K", WeightFormat::q6_k}};
  for (const auto& [name, format] : formats) {
    const std::size_t at = json.find("\"" + name + "\"");
    expect(at != std::string::npos, "the oracle has no " + name);
    const std::vector<std::uint8_t> blocks = base64_of(json, value_of(json, "bytes", at));
    const std::vector<std::uint8_t> numbers = base64_of(json, value_of(json, "values", at));
    std::vector<float> want(numbers.size() / 4);
    std::memcpy(want.data(), numbers.data(), numbers.size());
    expect(gguf_finite(format, blocks.data(), blocks.size()), name + " is not finite");
    const std::vector<float> got = gguf_dequantised(format, blocks.data(), static_cast<std::int64_t>(want.size()));
    for (std::size_t i = 0; i < want.size(); ++i) {
      expect(std::abs(got[i] - want[i]) <= 1e-6f * std::abs(want[i]), name + ": number " + std::to_string(i) + " is " +
                                                                          std::to_string(got[i]) + ", not " +
                                                                          std::to_string(want[i]));
    }
  }
}

void check_sizes() {
  const auto backend = make_cpu_backend(1);
  expect(backend->make_moments(MomentsFormat::blocks8, 4095).format == MomentsFormat::f32, "small moments have 8 bits");
  const Moments moments = backend->make_moments(MomentsFormat::blocks8, 1'000'000);
  const double bytes = static_cast<double>(moments.bytes()) / 1e6;
  expect(bytes < 2.04, "8-bit moments take " + std::to_string(bytes) + " bytes a number");
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora::test;
  TestRun run(argc, argv);
  run.run("the dynamic maps are bitsandbytes'", check_maps);
  run.run("numbers get bitsandbytes' codes, or nearer ones", check_quantising);
  run.run("steps of 8-bit AdamW are bitsandbytes'", [] { check_steps(0, 0.01); });
  run.run("small tensors keep their moments in f32", [] { check_steps(1, 1e-5); });
  run.run("8-bit moments are small", check_sizes);
  run.run("NF4 is bitsandbytes'", check_nf4);
  run.run("blocks of GGUF files are the gguf package's", check_gguf);
  return run.finish();
}
