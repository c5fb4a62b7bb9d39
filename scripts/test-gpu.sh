#!/usr/bin/env bash
# The native tests that want a CUDA device, on a bare machine: needs nvcc and CMake, neither Bun nor oneDNN.
#   scripts/test-gpu.sh            builds and runs them, then compute-sanitizer over their small cases
#   scripts/test-gpu.sh --bench    and the benches of kernels and of whole steps after them
# Fails where there is no device. nvcc is CUDACXX, that on PATH, or /usr/local/cuda/bin/nvcc. The last line is
# "N passed, N failed".
set -u -o pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "tempora: $1" >&2
  exit 1
}

bench=
case "${1:-}" in
  "") ;;
  --bench) bench=yes ;;
  *) fail "test-gpu.sh knows --bench, not $1" ;;
esac

nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || fail "There is no nvcc: install the CUDA toolkit, or set CUDACXX to its nvcc, and run the command again"
toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
# cuBLASLt is opened by its name at run time.
export LD_LIBRARY_PATH="$toolkit/lib64:$toolkit/targets/x86_64-linux/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

build=native/build-cuda
generator=()
if command -v ninja >/dev/null && [ ! -e "$build/CMakeCache.txt" ]; then generator=(-G Ninja); fi
CUDACXX=$nvcc cmake -S native -B "$build" "${generator[@]}" -DTEMPORA_CPU=OFF -DTEMPORA_CUDA=ON ||
  fail "CMake could not configure the GPU tests (see above)"
cmake --build "$build" --target tempora_gpu_tests --parallel "$(nproc)" || fail "The GPU tests could not be built (see above)"

passed=0
failed=0
# Adds what a test's last line counts; whatever ended without one, or failed without counting it, is one failure.
count() {
  local code=$1 line=$2
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    if [ "$code" -eq 0 ] && [ "${BASH_REMATCH[1]}" -gt 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ]; then return; fi
  fi
  failed=$((failed + 1))
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for name in cuda_ops_test cuda_engine_test; do
  echo
  echo "$name"
  "$build/gpu/$name" | tee "$log"
  count $? "$(tail -n 1 "$log")"
done

# Cases small enough for a tool that slows kernels down a hundredfold.
cases=("rms_norm" "head of a small vocabulary" "T=1 " "row_product" "tree attention T=81" "cached attention T=81 C=64"
  "top 5 of 3" "adamw")
sanitizer=$(command -v "$(dirname "$nvcc")/compute-sanitizer" || command -v compute-sanitizer)
if [ "$failed" -gt 0 ]; then
  echo "compute-sanitizer is not run: the tests failed"
elif [ -z "$sanitizer" ]; then
  echo "compute-sanitizer is not installed: accesses out of bounds and races were not looked for"
else
  for tool in memcheck racecheck initcheck; do
    for name in "${cases[@]}"; do
      echo
      echo "compute-sanitizer --tool $tool, cases \"$name\""
      # The test itself fails where no case has such a name.
      if "$sanitizer" --tool "$tool" --error-exitcode 1 "$build/gpu/cuda_ops_test" "$name"; then
        passed=$((passed + 1))
      else
        failed=$((failed + 1))
      fi
    done
  done
fi

if [ -n "$bench" ] && [ "$failed" -eq 0 ]; then
  for name in cuda_bench cuda_engine_bench; do
    echo
    echo "$name"
    "$build/gpu/$name" || failed=$((failed + 1))
  done
fi

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
