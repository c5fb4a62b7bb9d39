#include "token_sampler.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../forest/random.h"

namespace tempora {
namespace {

// Rows that follow each other and are sampled alike, in one call of the backend.
void sample_chunk(Backend& backend, const Matrix& logits, const SampledRow* rows, const SampleBuffers& buffers) {
  for (std::int64_t begin = 0; begin < logits.rows;) {
    std::int64_t end = begin + 1;
    while (end < logits.rows && rows[end].options == rows[begin].options) ++end;
    backend.sample(logits.row_range(begin, end - begin), rows[begin].options, buffers.uniforms + begin,
                   buffers.tokens + begin, buffers.log_probs + begin);
    begin = end;
  }
}

void tell_likely(Backend& backend, const Matrix& logits, const SampledRow* rows, LikelyTokens& likely) {
  for (std::int64_t row = 0; row < logits.rows; ++row) {
    if (rows[row].likely == 0) continue;
    const std::vector<float> host = logits_on_host(backend, logits.row_range(row, 1));
    append_likely(host.data(), logits.cols, log_sum_exp(host.data(), logits.cols), rows[row].likely, likely);
  }
}

// One token has one log-prob, to the last bit: that of the backend, not of tell_likely.
void agree(const std::vector<SampledRow>& rows, SampledTokens& sampled) {
  std::size_t next = 0;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const std::size_t end = std::min(sampled.likely.ids.size(), next + static_cast<std::size_t>(rows[row].likely));
    for (; next < end; ++next) {
      if (sampled.likely.ids[next] == sampled.tokens[row]) sampled.likely.log_probs[next] = sampled.log_probs[row];
    }
  }
}

}  // namespace

double uniform_of(std::uint64_t seed, const SampleKey& key) {
  std::uint64_t bits = combine_key(mix64(seed), key.prompt);
  bits = combine_key(bits, static_cast<std::uint64_t>(key.sample));
  return unit_interval(combine_key(bits, static_cast<std::uint64_t>(key.position)));
}

void SampledTokens::set(const std::uint8_t* token_bytes, const std::uint8_t* log_prob_bytes, std::size_t rows) {
  tokens.resize(rows);
  log_probs.resize(rows);
  std::memcpy(tokens.data(), token_bytes, rows * sizeof(std::int32_t));
  std::memcpy(log_probs.data(), log_prob_bytes, rows * sizeof(float));
  for (std::size_t row = 0; row < rows; ++row) {
    if (tokens[row] < 0) throw std::domain_error("the logits of row " + std::to_string(row) + " are not finite");
  }
}

void sample_rows(Engine::Impl& impl, const Matrix& x, const std::vector<SampledRow>& rows, const SampleBuffers& buffers,
                 LikelyTokens* likely) {
  Backend& backend = *impl.backend;
  Arena& scratch = impl.decoder.scratch();
  const Parameters& parameters = impl.parameters;
  const Matrix normed = scratch.matrix(x.rows, x.cols, parameters.dtype());
  backend.rms_norm(x, parameters.data(parameters.final_norm()), impl.shape.norm_eps, normed, scratch.floats(x.rows));
  const std::int64_t vocabulary = impl.shape.vocab_size;
  const std::int64_t at_once = std::max<std::int64_t>(1, backend.budget().decoded_logits / (vocabulary * 4));
  for (std::int64_t begin = 0; begin < x.rows; begin += at_once) {
    const ArenaScope scope(scratch);
    const std::int64_t count = std::min(at_once, x.rows - begin);
    const Matrix logits = scratch.matrix(count, vocabulary, DType::f32);
    backend.row_product(normed.row_range(begin, count), parameters.weight(parameters.head()), logits, false);
    sample_chunk(backend, logits, rows.data() + begin,
                 {buffers.uniforms + begin, buffers.tokens + begin, buffers.log_probs + begin});
    if (likely != nullptr) tell_likely(backend, logits, rows.data() + begin, *likely);
  }
}

SampledTokens sample_tokens(Engine::Impl& impl, const Matrix& x, const std::vector<SampledRow>& rows) {
  Arena& scratch = impl.decoder.scratch();
  std::vector<double> uniforms;
  for (const SampledRow& row : rows) uniforms.push_back(uniform_of(row.seed, row.key));
  const std::size_t count = rows.size();
  auto* tokens = static_cast<std::int32_t*>(scratch.bytes(count * (sizeof(std::int32_t) + sizeof(float))));
  SampledTokens result;
  sample_rows(impl, x, rows, {scratch.upload(uniforms), tokens, reinterpret_cast<float*>(tokens + count)},
              &result.likely);
  // Tokens and log-probs lie together, so that they are waited for once.
  std::vector<std::uint8_t> host(count * (sizeof(std::int32_t) + sizeof(float)));
  impl.backend->copy_out(host.data(), tokens, host.size());
  result.set(host.data(), host.data() + count * sizeof(std::int32_t), count);
  agree(rows, result);
  return result;
}

}  // namespace tempora
