#!/usr/bin/env bash
# The native tests that want a CUDA device, on a bare machine: needs nvcc and CMake, neither Bun nor oneDNN.
#   scripts/test-gpu.sh            builds and runs them, then compute-sanitizer over their small cases
#   scripts/test-gpu.sh --bench    and the benches of kernels and of whole steps after them
#   scripts/test-gpu.sh --bench --peers    and torch, transformers and PEFT after those, where python3 (or PYTHON) has them
# Fails where there is no device. nvcc is CUDACXX, that on PATH, or /usr/local/cuda/bin/nvcc. The last line is
# "N passed, N failed".
set -u -o pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "tempora: $1" >&2
  exit 1
}

bench=
peers=
for flag in "$@"; do
  case "$flag" in
    --bench) bench=yes ;;
    --peers) peers=yes ;;
    *) fail "test-gpu.sh knows --bench and --peers, not $flag" ;;
  esac
done

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
cases=("rms_norm of long" "recomputed_norm" "head_norm of 64" "embed, few" "attention_inputs of 16" "row_attention_inputs bf16"
  "head of a small vocabulary" "T=1 " "row_product" "tree attention T=81" "cached attention T=81 C=64" "top 5 of 3"
  "adamw" "33x16 of 200" "in one pass, 16 of 200" "recorded operations give the same bits, order 0 bf16")
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
  echo
  "$build/gpu/cuda_bench" | tee "$log" || failed=$((failed + 1))
  # Its first lines: what the other bench's floors are made of.
  ceilings=$(sed -n 's|^ceilings: .* \([0-9.]*\) TFLOP/s, .* \([0-9.]*\) GB/s .*|\1 \2|p' "$log")
  echo
  # shellcheck disable=SC2086  # two numbers
  "$build/gpu/cuda_engine_bench" ${ceilings:-800 4200} 135M 1B 8B || failed=$((failed + 1))
fi
if [ -n "$peers" ] && [ "$failed" -eq 0 ]; then
  echo
  timeout 240 "${PYTHON:-python3}" bench/peers/torch_gpu.py || failed=$((failed + 1))
fi

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
