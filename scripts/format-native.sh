#!/usr/bin/env bash
# Formats the C++ files with clang-format; --check only complains.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=(-i)
[ "${1:-}" = "--check" ] && mode=(--dry-run --Werror)
git ls-files --cached --others --exclude-standard -- '*.h' '*.cc' '*.cu' |
  xargs --no-run-if-empty clang-format "${mode[@]}"
