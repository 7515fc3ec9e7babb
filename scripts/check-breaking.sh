#!/usr/bin/env bash
# The contract may grow but not break: compares proto/ with the last release, or, before the first
# release, with the commit before this one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git rev-parse HEAD~1 2>/dev/null || true)
if [ -z "$base" ] || ! git cat-file -e "$base:proto" 2>/dev/null; then
  echo "no earlier contract to compare with"
  exit 0
fi
exec npx buf breaking --against ".git#ref=$base"
