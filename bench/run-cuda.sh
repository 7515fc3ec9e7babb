#!/usr/bin/env bash
# Everything that only a GPU can tell: builds the CUDA backend, tests it, checks it with compute-sanitizer,
# measures kernels and engine beside PyTorch, and writes bench/results/cuda-<gpu>.md. Needs nvcc, CMake
# and a Python with PyTorch; no Node, no network. See bench/cuda.md.
#   bench/run-cuda.sh [--only PHASE,…] [--again] [--seconds N] [--out FOLDER] [--build FOLDER]
#                     [--python PYTHON] [--gtest FOLDER] [--report FILE] [--emulated]
# Phases, in order: machine build tests sanitize limits kernels attention forward graphs overlap ahead
# formats steering capture chunks memory report. One that is done is not done again without --again: call it until it says that
# all is done. --seconds: none begins that would not end in time, and each has a limit of its own.
# Folders are relative to the root of the repository, or absolute.
# --emulated runs all but sanitize on the emulator, on tiny shapes: to see that it works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

phases=(machine build tests sanitize limits kernels attention forward graphs overlap ahead formats
  steering capture chunks memory report)
# Seconds that a phase gets at most, and without which it does not begin.
declare -A most=([machine]=60 [build]=500 [tests]=420 [sanitize]=560 [limits]=120 [kernels]=300
  [attention]=300 [forward]=560 [graphs]=300 [overlap]=300 [ahead]=300 [formats]=480 [steering]=420 [capture]=240 [chunks]=300
  [memory]=120 [report]=30)
declare -A least=([machine]=10 [build]=150 [tests]=120 [sanitize]=120 [limits]=40 [kernels]=100
  [attention]=60 [forward]=240 [graphs]=90 [overlap]=90 [ahead]=90 [formats]=150 [steering]=120 [capture]=60 [chunks]=60
  [memory]=40 [report]=5)

only= again=0 seconds=100000 out=out/cuda-results build= python=python3 gtest= report= emulated=0 phase=
original=("$@")
while [ $# -gt 0 ]; do
  case "$1" in
    --only) only=$2; shift 2 ;;
    --again) again=1; shift ;;
    --seconds) seconds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --build) build=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --gtest) gtest=$2; shift 2 ;;
    --report) report=$2; shift 2 ;;
    --emulated) emulated=1; shift ;;
    --phase) phase=$2; shift 2 ;; # of its own: one phase, in a process that can be stopped
    *) sed -n '2,12s/^# \?//p' bench/run-cuda.sh >&2; exit 2 ;;
  esac
done

shape=llama-3.1-8b milliseconds=60 reference_device=cuda rounds=
if [ "$emulated" = 1 ]; then
  shape=tiny milliseconds=0 reference_device=cpu rounds=2
fi
: "${build:=$([ "$emulated" = 1 ] && echo out/cuda-emulated || echo build/cuda)}"
[[ $out = /* ]] || out=$PWD/$out
cmake=${CMAKE:-cmake} ctest=${CTEST:-ctest}
[ -d /usr/local/cuda/bin ] && PATH=$PATH:/usr/local/cuda/bin
limit=${LLAMA_STEER_PHASE_SECONDS:-600}

json_text() { "$python" -c 'import json,sys; print(json.dumps(sys.stdin.read().strip()))'; }

phase_machine() {
  local gpu driver='' compiler=none
  if [ "$emulated" = 1 ]; then
    gpu='CUDA emulator'
  else
    gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
    compiler=$(nvcc --version | grep -o 'V[0-9][0-9.]*' | head -1 || true)
  fi
  local commit
  commit=$(git rev-parse --short HEAD 2>/dev/null || echo "${LLAMA_STEER_COMMIT:-unknown}")
  printf '{"gpu": %s, "driver": "%s", "nvcc": "%s", "commit": "%s", "date": "%s", "host": %s, "emulated": %s}\n' \
    "$(json_text <<<"$gpu")" "$driver" "$compiler" "$commit" "$(date -u +%F)" \
    "$(uname -srm | json_text)" "$([ "$emulated" = 1 ] && echo true || echo false)" >"$out/machine.json"
  cat "$out/machine.json"
}

# GoogleTest has no place of its own on a bare machine: its sources may travel in out/googletest.
gtest_source() {
  local folder
  for folder in "$gtest" out/googletest /usr/src/googletest; do
    if [ -n "$folder" ] && [ -f "$folder/CMakeLists.txt" ]; then
      realpath "$folder"
      return
    fi
  done
}

phase_build() {
  local options=(-DLLAMA_STEER_ADDON=OFF -DLLAMA_STEER_BENCH=ON -DLLAMA_STEER_TESTS=ON)
  local targets=(bench_engine bench_cuda_kernels test_cuda_kernels test_cuda_model test_cuda_engine
    test_cuda_bench)
  if [ "$emulated" = 1 ]; then
    options+=(-DLLAMA_STEER_CUDA=OFF -DLLAMA_STEER_CUDA_EMULATED=ON
      "-DLLAMA_STEER_CUDA_TOOLKIT=$(scripts/cuda-toolkit.sh)")
    targets+=(test_cuda_emulator)
  else
    local capability
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d '. ')
    [ "$capability" = 90 ] && capability=90a
    options+=(-DLLAMA_STEER_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$capability-real")
  fi
  local source
  source=$(gtest_source)
  if [ -n "$source" ]; then
    options+=("-DLLAMA_STEER_GTEST_SOURCE=$source")
  elif [ ! -e /usr/include/gtest/gtest.h ]; then
    echo 'built without tests: GoogleTest is missing, put its sources into out/googletest' >&2
    options+=(-DLLAMA_STEER_TESTS=OFF)
    targets=(bench_engine bench_cuda_kernels)
  fi
  command -v ninja >/dev/null && options+=(-G Ninja)
  "$cmake" -S . -B "$build" "${options[@]}"
  "$cmake" --build "$build" --parallel "$(nproc)" --target "${targets[@]}"
}

# Tests that look at the free memory of the device want it for themselves.
phase_tests() {
  [ -e "$build/test_cuda_kernels" ] || { echo 'the tests are not built' >&2; return 1; }
  local ctest_options=(--test-dir "$build" -L cuda --output-on-failure) rc=0
  if [ "$emulated" = 1 ]; then
    ctest_options+=(--timeout 1500 --parallel 2)
  else
    ctest_options+=(--timeout 180 --parallel 4)
  fi
  "$ctest" "${ctest_options[@]}" -E CudaBackend \
    --output-junit "$out/tests-parallel.xml" || rc=$?
  "$ctest" "${ctest_options[@]}" -R CudaBackend --parallel 1 --output-junit "$out/tests-alone.xml" || rc=$?
  return $rc
}

# One line of JSON a run; what has passed is not run again. compute-sanitizer slows kernels down a
# hundredfold and more: tiny shapes.
sanitized() {
  local tool=$1 begin=$SECONDS rc=0 log="$out/sanitize-$1.log" summary
  shift
  local run="\"tool\": \"$tool\", \"program\": \"$(basename "$1") ${*:2}\""
  grep -qF "{$run, \"rc\": 0," "$out/sanitize.jsonl" 2>/dev/null && return
  timeout 150 compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$@" \
    >"$log.part" 2>&1 || rc=$?
  cat "$log.part" >>"$log"
  summary=$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log.part" | tail -1 | sed 's/^=* *//' || true)
  rm "$log.part"
  printf '{%s, "rc": %d, "summary": "%s", "seconds": %d}\n' "$run" "$rc" "$summary" \
    "$((SECONDS - begin))" | tee -a "$out/sanitize.jsonl"
  [ "$rc" = 0 ]
}

phase_sanitize() {
  command -v compute-sanitizer >/dev/null || { echo 'compute-sanitizer is not installed' >&2; return 1; }
  local rc=0 tool
  local kernels='--gtest_filter=*Attention*ASequence*:*Attention*ChunksOfAPrompt*:*Linear*SeveralTargets*:*Linear*Slices*:*FusedLinear*:*Norm*SeveralOperations*:*Norm*Captures*:*GateProbe*ARow*:*Sample*ALarge*:*RopeKv*:*Lora*RowsOutside*'
  local model='--gtest_filter=Graphs.*:LlamaInvariants*Batch*'
  [ "$again" = 0 ] || rm -f "$out"/sanitize[.-]*
  for tool in memcheck racecheck initcheck synccheck; do
    sanitized "$tool" "$build/bench_cuda_kernels" --shape tiny --milliseconds 0 || rc=1
  done
  for tool in memcheck initcheck; do
    sanitized "$tool" "$build/test_cuda_model" "$model" || rc=1
  done
  for tool in memcheck racecheck; do
    sanitized "$tool" "$build/test_cuda_kernels" "$kernels" || rc=1
  done
  return $rc
}

reference() { "$python" bench/cuda/reference.py "$@" --device "$reference_device" --shape "$shape"; }
phase_limits() { reference limits --out "$out/limits.json"; }

kernel_bench() {
  local dense
  dense=$("$python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["dense_tflops"])' \
    "$out/limits.json" 2>/dev/null || echo 0)
  "$build/bench_cuda_kernels" --shape "$shape" --milliseconds "$milliseconds" --dense-tflops "$dense" "$@"
}
phase_kernels() { kernel_bench --json "$out/kernels.json"; }

# By turns, as a GPU that has grown warm is another.
phase_attention() {
  local round
  for round in 1 2 3; do
    kernel_bench --filter Attention --json "$out/attention-ours-$round.json"
    reference attention --out "$out/attention-pytorch-$round.json" >/dev/null
  done
}

engine() {
  local more=()
  [ -n "$rounds" ] && more+=(--rounds "$rounds")
  [ "$1" != forward ] || "$python" -c 'import torch' 2>/dev/null || more+=(--no-reference)
  "$python" bench/cuda/engine.py "$1" --bench "$build/bench_engine" --shape "$shape" \
    --python "$python" --reference-device "$reference_device" --out "$out/engine-$1.json" \
    --seconds "$((limit > 90 ? limit - 60 : limit / 2))" "${more[@]}"
}
for group in forward graphs overlap ahead formats steering capture chunks; do
  eval "phase_$group() { engine $group; }"
done

# Without orders: what the engine says of itself once it is ready.
phase_memory() {
  "$build/bench_engine" --orders --random --device cuda --shape "$shape" </dev/null |
    tee "$out/memory.part"
  mv "$out/memory.part" "$out/memory.json"
}

phase_report() {
  local more=()
  [ -n "$report" ] && more+=(--report "$report")
  "$python" bench/cuda/report.py "$out" "${more[@]}"
}

if [ -n "$phase" ]; then
  "phase_$phase"
  exit
fi

mkdir -p "$out/done" "$out/failed"
chosen() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }
begin=$SECONDS
left_out=()
failures=()
for name in "${phases[@]}"; do
  chosen "$name" || continue
  if [ -e "$out/done/$name" ] && [ "$again" = 0 ] && [ "$name" != report ]; then continue; fi
  if [ "$name" = sanitize ] && [ "$emulated" = 1 ]; then continue; fi
  remaining=$((seconds - (SECONDS - begin)))
  if [ "$name" != report ] && [ "$remaining" -lt "${least[$name]}" ]; then
    left_out+=("$name")
    continue
  fi
  limit=$((remaining < most[$name] ? remaining : most[$name]))
  [ "$name" = report ] && limit=${most[report]}
  [ "$emulated" = 1 ] && limit=3000
  echo "=== $name, at most $limit s"
  started=$SECONDS
  rm -f "$out/done/$name" "$out/failed/$name"
  rc=0
  LLAMA_STEER_PHASE_SECONDS=$limit timeout --kill-after 10 "$limit" bash bench/run-cuda.sh "${original[@]}" --phase "$name" \
    > >(tee "$out/$name.log") 2>&1 || rc=$?
  if [ "$rc" = 0 ]; then
    echo "$((SECONDS - started))" >"$out/done/$name"
  else
    echo "$rc" >"$out/failed/$name"
    failures+=("$name")
  fi
  echo "=== $name: $([ "$rc" = 0 ] && echo done || echo "failed with $rc") after $((SECONDS - started)) s"
  if [ "$name" = build ] && [ "$rc" != 0 ]; then break; fi
done
[ ${#failures[@]} = 0 ] || echo "failed: ${failures[*]}"
if [ ${#left_out[@]} -gt 0 ]; then
  echo "no time was left for: ${left_out[*]}; call again"
elif [ ${#failures[@]} = 0 ]; then
  echo 'all is done'
fi
[ ${#failures[@]} = 0 ] && [ ${#left_out[@]} = 0 ]
