#include "decoding_pass.h"

#include <algorithm>
#include <utility>

namespace tempora {
namespace {

// Each has a graph or the like. Batches shrink row by row, and hardly ever come back.
constexpr std::size_t kMostKinds = 8;

enum Ints { kTokens, kFrom, kPositions, kSlots };

bool same_options(const std::vector<SampledRow>& a, const std::vector<SampledRow>& b) {
  return std::ranges::equal(a, b, [](const SampledRow& x, const SampledRow& y) { return x.options == y.options; });
}

}  // namespace

DecodingPass::DecodingPass(Engine::Impl& impl, const KvCache& cache, std::int64_t max_rows)
    : impl_(impl),
      backend_(*impl.backend),
      cache_(cache),
      max_rows_(backend_.recorded_rows(max_rows)),
      results_(backend_.allocate(static_cast<std::size_t>(max_rows_) * (sizeof(std::int32_t) + sizeof(float)),
                                 MemoryUse::workspace)) {}

// Up to the rows that a recording has, with copies of the last one: they compute and write what it does.
void DecodingPass::fill_up(DecodingRows& rows) const {
  const auto wanted = backend_.recorded_rows(static_cast<std::int64_t>(rows.sampled.size()));
  while (static_cast<std::int64_t>(rows.sampled.size()) < wanted) {
    rows.inputs.repeat_last();
    rows.sampled.push_back(rows.sampled.back());
    rows.from.push_back(rows.from.back());
  }
}

DecodingPass::Kind& DecodingPass::kind_of(const DecodingRows& rows) {
  const auto count = static_cast<std::int64_t>(rows.sampled.size());
  const auto found = std::ranges::find_if(kinds_, [&](const Kind& kind) {
    return kind.rows == count && kind.adapters.runs.list() == rows.inputs.adapters.runs.list() &&
           same_options(kind.sampled, rows.sampled);
  });
  if (found != kinds_.end()) {
    kinds_.splice(kinds_.begin(), kinds_, found);
    return kinds_.front();
  }
  if (kinds_.size() == kMostKinds) kinds_.pop_back();
  Kind& kind = kinds_.emplace_front();
  kind.rows = count;
  kind.adapters = rows.inputs.adapters;
  kind.sampled = rows.sampled;
  kind.inputs = backend_.allocate(Kind::bytes(count), MemoryUse::workspace);
  return kind;
}

// Small copies cost more than their bytes: one for all.
void DecodingPass::copy_in(const Kind& kind, const DecodingRows& rows) {
  std::vector<std::uint8_t> bytes;
  const auto add = [&](const auto& array) {
    const auto* begin = reinterpret_cast<const std::uint8_t*>(array.data());
    bytes.insert(bytes.end(), begin, begin + array.size() * sizeof(array[0]));
  };
  std::vector<double> uniforms;
  for (const SampledRow& row : rows.sampled) uniforms.push_back(uniform_of(row.seed, row.key));
  add(uniforms);
  add(rows.inputs.tokens);
  add(rows.from);
  add(rows.inputs.positions);
  add(rows.inputs.slots);
  backend_.copy_in(kind.inputs.data(), bytes.data(), bytes.size());
}

void DecodingPass::run(const Kind& kind) {
  const ArenaScope scope(impl_.decoder.scratch());
  backend_.continue_tokens(tokens(), kind.ints(kFrom), kind.rows, kind.ints(kTokens));
  const DeviceRows rows{kind.ints(kTokens), kind.ints(kPositions), kind.ints(kSlots), kind.rows};
  const Matrix x = forward_cached(impl_, cache_, rows, rows.count, *kind.plan, kind.adapters, cancel_);
  sample_rows(impl_, x, kind.sampled, {kind.uniforms(), tokens(), log_probs()}, nullptr);
}

void DecodingPass::queue(DecodingRows rows, const CancelFlag* cancel) {
  const std::size_t count = rows.sampled.size();
  fill_up(rows);
  Kind& kind = kind_of(rows);
  copy_in(kind, rows);
  const bool same_plan = backend_.change_plan(kind.plan, rows.inputs.paths.take());
  // What is recorded knows where the plan and the scratch memory lie.
  const std::uint64_t scratch = impl_.decoder.scratch().version();
  if (!same_plan || kind.scratch_version != scratch || kind.recording == nullptr) {
    kind.recording = backend_.record([this, &kind] { run(kind); });
    kind.scratch_version = scratch;
  }
  cancel_ = cancel;
  if (cancel != nullptr) cancel->check();
  kind.recording->run();
  arrivals_.push_back({count, backend_.copy_out_later(results_.data(), results_.bytes())});
}

SampledTokens DecodingPass::take() {
  const Queued queued = std::move(arrivals_.front());
  arrivals_.pop_front();
  const std::uint8_t* bytes = queued.results->wait();
  SampledTokens sampled;
  sampled.set(bytes, bytes + static_cast<std::size_t>(max_rows_) * sizeof(std::int32_t), queued.rows);
  return sampled;
}

}  // namespace tempora
