#!/usr/bin/env bash
# Makes what the Python client needs below out/external: a virtual environment with the pinned
# packages, and stubs by grpcio-tools. Prints the folder. Done once for each requirements.txt.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../../.." && pwd)
out="$root/out/external"
venv="$out/venv"
stamp="$venv/requirements.txt"
if ! cmp --silent "$here/requirements.txt" "$stamp"; then
  rm -rf "$venv"
  mkdir -p "$out"
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
    --requirement "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$stamp"
fi
rm -rf "$out/stubs"
mkdir -p "$out/stubs"
"$venv/bin/python" -m grpc_tools.protoc --proto_path="$root/proto" \
  --python_out="$out/stubs" --grpc_python_out="$out/stubs" "$root"/proto/llamasteer/v1/*.proto >&2
echo "$out"
