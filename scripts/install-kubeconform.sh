#!/usr/bin/env bash
# Builds kubeconform into out/tools, with the schemas of Kubernetes, of the Prometheus operator and of
# KEDA as those projects publish them: for the tests of the chart. Does nothing when both are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
KUBECONFORM_VERSION=v0.7.0
KUBERNETES=k8s.io/kubernetes@v1.34.2
PROMETHEUS_OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
KEDA=github.com/kedacore/keda/v2@v2.18.0

tools=$PWD/out/tools
schemas=$tools/kubernetes-schemas
made_of="$KUBERNETES $PROMETHEUS_OPERATOR $KEDA $(sha256sum scripts/kubernetes-schemas.mjs)"
scripts/install-helm.sh
require_go "$tools"

if [ ! -x "$tools/kubeconform-$KUBECONFORM_VERSION" ]; then
  echo "Building kubeconform $KUBECONFORM_VERSION …"
  GOBIN=$tools GOFLAGS=-trimpath \
    go install "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM_VERSION"
  mv "$tools/kubeconform" "$tools/kubeconform-$KUBECONFORM_VERSION"
  ln -sf "kubeconform-$KUBECONFORM_VERSION" "$tools/kubeconform"
fi

if [ "$(cat "$schemas/MADE_OF" 2>/dev/null)" != "$made_of" ]; then
  # The folder of a module in Go's cache, downloaded when it is not there.
  module() { (cd / && go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
  rm -rf "$schemas"
  node scripts/kubernetes-schemas.mjs --out "$schemas" --helm "$tools/helm" \
    --kubernetes "$(module "$KUBERNETES")" \
    --crds "$(module "$PROMETHEUS_OPERATOR")/example/prometheus-operator-crd" \
    --crds "$(module "$KEDA")/config/crd/bases"
  echo "$made_of" >"$schemas/MADE_OF"
fi
