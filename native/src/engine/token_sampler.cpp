#include "token_sampler.h"

#include <algorithm>

#include "../forest/random.h"

namespace tempora {
namespace {

// Logits in memory at once, at most.
constexpr std::int64_t kLogitsBytes = std::int64_t{64} << 20;

}  // namespace

double uniform_of(std::uint64_t seed, const SampleKey& key) {
  std::uint64_t bits = combine_key(mix64(seed), key.prompt);
  bits = combine_key(bits, static_cast<std::uint64_t>(key.sample));
  return unit_interval(combine_key(bits, static_cast<std::uint64_t>(key.position)));
}

SampledTokens sample_tokens(Engine::Impl& impl, const Matrix& x, const GenerationOptions& options,
                            const std::vector<SampleKey>& keys) {
  Backend& backend = *impl.backend;
  Arena& scratch = impl.decoder.scratch();
  const Parameters& parameters = impl.parameters;
  const Matrix normed = scratch.matrix(x.rows, x.cols, parameters.dtype());
  backend.rms_norm(x, parameters.data(parameters.final_norm()), impl.shape.norm_eps, normed, scratch.floats(x.rows));
  std::vector<double> uniforms;
  for (const SampleKey& key : keys) uniforms.push_back(uniform_of(options.seed, key));
  SampledTokens result{std::vector<std::int32_t>(keys.size()), std::vector<float>(keys.size())};
  const std::int64_t vocabulary = impl.shape.vocab_size;
  const std::int64_t at_once = std::max<std::int64_t>(1, kLogitsBytes / (vocabulary * 4));
  for (std::int64_t begin = 0; begin < x.rows; begin += at_once) {
    const ArenaScope scope(scratch);
    const std::int64_t count = std::min(at_once, x.rows - begin);
    const Matrix logits = scratch.matrix(count, vocabulary, DType::f32);
    backend.row_product(normed.row_range(begin, count), parameters.weight(parameters.head()), logits, false);
    backend.sample(logits, options.sampling, uniforms.data() + begin, result.tokens.data() + begin,
                   result.log_probs.data() + begin);
  }
  return result;
}

}  // namespace tempora
