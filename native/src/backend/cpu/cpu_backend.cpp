#include "cpu_backend.h"
#include "pair_product.h"

#include <fstream>
#include <stdexcept>

#include "openmp_spin.h"
#include "parallel.h"

namespace tempora {
namespace {

int thread_count(int wanted) {
  if (wanted < 0) throw std::invalid_argument("threads must not be negative");
  // The cores that this process may use, as OpenMP counts them.
  return wanted > 0 ? wanted : std::max(1, omp_get_num_procs());
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace

CpuBackend::CpuBackend(int threads)
    : threads_(thread_count(threads)),
      isa_(choose_isa()),
      native_bf16_(isa_ >= Isa::avx512 && onednn_has_native_bf16()),
      allocator_(threads_) {}

std::string CpuBackend::name() const { return std::string("cpu ") + isa_name(isa_); }

void CpuBackend::begin_many(std::optional<DType> large_products) {
  if (threads_ == 1) return;
  // oneDNN's products run on OpenMP's threads, and threads of a team that are awake would take their cores.
  if (large_products && !multiplies_pairs_of(isa_, *large_products)) return;
  if (team_ == nullptr) team_ = std::make_unique<ThreadTeam>(threads_);
  team_->stay_awake();
  active_team = team_.get();
}

void CpuBackend::end_many() noexcept {
  active_team = nullptr;
  if (team_ != nullptr) team_->rest();
}

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  shorten_openmp_spin();
  return std::make_unique<CpuBackend>(threads);
}

CpuInfo cpu_info() { return {isa_name(choose_isa()), cpu_name(), thread_count(0), onednn_version()}; }

}  // namespace tempora
