#!/usr/bin/env bash
# Builds helm into out/tools, unless it is there: for the tests of the chart.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
HELM_VERSION=v3.16.4

tools=$PWD/out/tools
[ -x "$tools/helm-$HELM_VERSION" ] && exit 0
# Tests run side by side.
mkdir -p "$tools"
exec 9>"$tools/helm.lock"
flock 9
[ -x "$tools/helm-$HELM_VERSION" ] && exit 0

require_go "$tools"
echo "Building helm $HELM_VERSION …"
GOBIN=$tools GOFLAGS=-trimpath go install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
mv "$tools/helm" "$tools/helm-$HELM_VERSION"
ln -sf "helm-$HELM_VERSION" "$tools/helm"
