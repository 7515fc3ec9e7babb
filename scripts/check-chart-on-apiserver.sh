#!/usr/bin/env bash
# Holds the chart to a real Kubernetes API server: every value set is applied with
# `--dry-run=server --validate=strict` into a namespace under the restricted Pod Security standard, with
# the resource definitions of the Prometheus operator and of KEDA. A warning fails as an error does.
# Builds kube-apiserver and kubectl from their Go modules the first time (five minutes), unless a
# folder with both is given; etcd comes from Debian (apt-get install etcd-server). Not part of ./check.
#   scripts/check-chart-on-apiserver.sh [FOLDER WITH kube-apiserver AND kubectl]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
VERSION=1.34.2
PROMETHEUS_OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
KEDA=github.com/kedacore/keda/v2@v2.18.0

tools=$PWD/out/tools
chart=deploy/helm/llama-steer
scripts/install-helm.sh
require_go "$tools"
command -v etcd >/dev/null || { echo "etcd is missing: apt-get install etcd-server" >&2; exit 1; }

bin=${1:-$tools/kubernetes-$VERSION}
if [ ! -x "$bin/kube-apiserver" ] || [ ! -x "$bin/kubectl" ]; then
  echo "Building kube-apiserver and kubectl $VERSION …"
  module=$(mktemp -d)
  (
    cd "$module"
    go mod init throwaway >/dev/null 2>&1
    staging=$(cd / && go mod download -json "k8s.io/kubernetes@v$VERSION" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
    sed -n 's/^\t\(k8s.io\/[^ ]*\) => .*/\1/p' "$staging" | while read -r name; do
      go mod edit -replace "$name=$name@v0.${VERSION#1.}"
    done
    printf 'package main\n\nimport (\n' >main.go
    printf '\t_ "%s"\n' k8s.io/component-base/cli k8s.io/kubectl/pkg/cmd k8s.io/kubernetes/cmd/kube-apiserver/app >>main.go
    printf ')\n\nfunc main() {}\n' >>main.go
    go mod edit -require "k8s.io/kubernetes@v$VERSION"
    go mod tidy >/dev/null 2>&1
    mkdir -p "$bin"
    go build -o "$bin/" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl
  )
  rm -rf "$module"
fi

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
free_port() { node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'; }
client=$(free_port) peer=$(free_port) secure=$(free_port)
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" >"$work/tokens.csv"
openssl genrsa -out "$work/account.key" 2048 2>/dev/null
etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
  --initial-cluster "default=http://127.0.0.1:$peer" >"$work/etcd.log" 2>&1 &
"$bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$client" --secure-port "$secure" --bind-address 127.0.0.1 \
  --cert-dir "$work/certificates" --token-auth-file "$work/tokens.csv" \
  --service-account-key-file "$work/account.key" --service-account-signing-key-file "$work/account.key" \
  --service-account-issuer https://localhost --service-cluster-ip-range 10.0.0.0/24 \
  --disable-admission-plugins ServiceAccount >"$work/apiserver.log" 2>&1 &
kubectl() { "$bin/kubectl" --kubeconfig /dev/null --server "https://127.0.0.1:$secure" --token "$token" --insecure-skip-tls-verify "$@"; }
for _ in $(seq 120); do
  kubectl get --raw /readyz >/dev/null 2>&1 && break
  sleep 0.5
done
kubectl get --raw /readyz >/dev/null || { tail -5 "$work/apiserver.log" >&2; exit 1; }

folder() { (cd / && go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
kubectl create -f "$(folder "$PROMETHEUS_OPERATOR")/example/prometheus-operator-crd" >/dev/null
kubectl create -f "$(folder "$KEDA")/config/crd/bases" >/dev/null
kubectl create namespace steer >/dev/null
kubectl label namespace steer pod-security.kubernetes.io/{enforce,warn}=restricted >/dev/null
kubectl wait --for condition=established --timeout 30s crd --all >/dev/null

failed=0 checked=0
apply() { # NAME, arguments of helm template
  local name=$1 output
  shift
  checked=$((checked + 1))
  if output=$("$tools/helm" template steer "$chart" --namespace steer --kube-version "$VERSION" "$@" 2>"$work/helm.log" |
    kubectl apply --namespace steer --dry-run=server --validate=strict -f - 2>&1) && ! grep -qi '^warning' <<<"$output"; then
    echo "ok      $name: $(wc -l <<<"$output") objects"
  else
    failed=$((failed + 1))
    echo "FAILED  $name" && cat "$work/helm.log" && grep -vi 'created (server dry run)' <<<"$output"
  fi
}
for values in "$chart"/ci/*.yaml; do apply "$(basename "$values")" --values "$values"; done
apply "the least that is valid" --set model.pvc=m --set security.insecureListen=true
# The controls: what the standard forbids must be warned of in a Deployment, and refused in a pod.
on_disk=$("$tools/helm" template steer "$chart" --namespace steer --kube-version "$VERSION" --set model.hostPath=/models --set security.insecureListen=true 2>/dev/null |
  kubectl apply --namespace steer --dry-run=server -f - 2>&1) || true
if ! grep -q "would violate PodSecurity" <<<"$on_disk"; then
  failed=$((failed + 1)) && echo "FAILED  a model on the node's disk was taken without a warning: $on_disk"
fi
if kubectl apply --namespace steer --dry-run=server -f - >/dev/null 2>&1 <<<'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"root"},"spec":{"hostNetwork":true,"containers":[{"name":"c","image":"i"}]}}'; then
  failed=$((failed + 1)) && echo "FAILED  a pod on the host's network was taken"
fi
echo "$checked value sets and 2 controls, $failed failed, on kube-apiserver $VERSION under restricted Pod Security"
[ "$failed" -eq 0 ]
