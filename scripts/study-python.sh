#!/usr/bin/env bash
# Puts a Python with the judges of studies/requirements.txt into out/study-python. Does nothing when
# it is already there. Prints the interpreter.
#   scripts/study-python.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=out/study-python
mkdir -p out
exec 9>out/study-python.lock
flock 9 # test files run beside one another
if ! cmp --silent studies/requirements.txt "$folder/installed"; then
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r studies/requirements.txt >&2
  cp studies/requirements.txt "$folder/installed"
fi
echo "$PWD/$folder/bin/python"
