#!/usr/bin/env bash
# Renders every policy in policies/ for every supported version of each mesh, and validates the manifests.
#
#   integration/mesh/manifests.sh BIN_DIR        (`make manifests` builds it and calls this)
set -euo pipefail

bin=${1:?the directory of the program pointsman}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
digest=sha256:$(printf '0%.0s' $(seq 64))
directories=()

render() {
  local out=$work/$1
  shift
  if ! said=$("$bin/pointsman" render "$@" --providers "$root/envoy/providers" --out "$out" \
    --image registry.example.com/pointsman --image-digest "$digest" 2>&1); then
    printf '%s\n' "$said" >&2
    exit 1
  fi
  directories+=("$out")
}

for policy in "$root"/policies/*.yaml; do
  name=$(basename "$policy" .yaml)
  for version in 1.28 1.29 1.30 1.31; do
    istio=(--target istio --target-version "$version" --policy "$policy" --namespace gateways)
    service=(--host llm.gateways.svc.cluster.local)
    render "$name-istio-$version-ingress" "${istio[@]}" --host llm.example.com
    render "$name-istio-$version-made" "${istio[@]}" --host llm.example.com --gateway eg.example
    render "$name-istio-$version-egress" "${istio[@]}" "${service[@]}" --at egress
    render "$name-istio-$version-sidecar" "${istio[@]}" "${service[@]}" --at sidecar --selector app=caller
  done
  for version in 1.6 1.7 1.8 1.9; do
    render "$name-envoy-gateway-$version" --target envoy-gateway --target-version "$version" --policy "$policy" \
      --namespace gateways --gateway eg --listener https --host llm.example.com
  done
done
node "$here/validate.mjs" "${directories[@]}"
