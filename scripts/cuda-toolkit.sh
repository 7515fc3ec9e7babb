#!/usr/bin/env bash
# Puts a CUDA toolkit into out/cuda-toolkit, from NVIDIA's wheels on PyPI: nvcc, headers, and a
# CMake that knows CUDA 13. Needs no GPU and no driver. Does nothing when it is already there.
# Prints the folder that holds bin/nvcc.
#   scripts/cuda-toolkit.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=out/cuda-toolkit
packages=(
  'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*'
  'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*'
  'cmake>=3.31,<4.2' # Debian's 3.25 does not find the CUDA 13 toolkit
)
stamp="$folder/installed"
wanted=$(printf '%s\n' "${packages[@]}")
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2
  root=$(echo "$folder"/lib/python3*/site-packages/nvidia/cu13)
  # What an installed toolkit has and the wheels lack.
  ln -sfn lib "$root/lib64"
  ln -sf libcudart.so.13 "$root/lib/libcudart.so"
  echo "$wanted" >"$stamp"
fi
echo "$PWD/$(echo "$folder"/lib/python3*/site-packages/nvidia/cu13)"
