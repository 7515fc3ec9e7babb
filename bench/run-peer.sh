#!/bin/sh
# llama-steer beside node-llama-cpp on a random checkpoint of a public shape; see bench/README.md.
#   bench/run-peer.sh [SHAPE] [options of bench/peer/compare.mjs]
set -eu
cd "$(dirname "$0")/.."

shape=llama-3.2-1b
case "${1:-}" in
  '' | -*) ;;
  *) shape=$1; shift ;;
esac
checkpoint=out/ckpt-$shape

# Not `npm ci`: the lock leaves out the peer's binaries for other platforms, which `ci` asks for.
[ -d bench/peer/node_modules ] ||
  npm --prefix bench/peer install --no-save --omit=optional --ignore-scripts --no-audit --no-fund
[ -f "$checkpoint/config.json" ] ||
  node bench/make-checkpoint.mjs --shape "$shape" --out "$checkpoint"
for type in bf16 f16 q8_0; do
  [ -f "$checkpoint.$type.gguf" ] ||
    node bench/peer/make-gguf.mjs "$checkpoint" "$type" "$checkpoint.$type.gguf"
done

cmake -S . -B out/bench -DLLAMA_STEER_ADDON=OFF -DLLAMA_STEER_BENCH=ON >out/bench.log
cmake --build out/bench --parallel 2 >>out/bench.log

exec node bench/peer/compare.mjs --shape "$shape" --checkpoint "$checkpoint" "$@"
