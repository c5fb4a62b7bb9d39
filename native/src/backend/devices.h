// The backends that there are.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace tempora {

class Backend;

// What this machine has; see addon's deviceInfo().
struct CpuInfo {
  std::string kernels;  // "baseline", "avx2", "avx512"
  std::string name;
  int threads = 0;
  std::string onednn;
};
struct CudaInfo {
  bool built = false;
  std::vector<std::string> devices;
  std::string problem;  // why there is no device, or empty
};

std::unique_ptr<Backend> make_cpu_backend(int threads);  // threads 0: all cores
CpuInfo cpu_info();
std::unique_ptr<Backend> make_cuda_backend();  // throws when built without CUDA or when there is no device
CudaInfo cuda_info();

}  // namespace tempora
