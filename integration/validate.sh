#!/usr/bin/env bash
# Renders every policy in policies/ for the oldest supported Envoy and for this one, and has this Envoy validate the
# latter.
#
#   integration/validate.sh BIN_DIR WASM        (`make check` builds both and calls this; ENVOY names the Envoy)
set -euo pipefail

bin=${1:?the directory of the program pointsman} wasm=$(realpath "${2:?the module}")
: "${ENVOY:?names an Envoy; \`make check\` installs one}"
root=$(cd "$(dirname "$0")/.." && pwd)
oldest=1.36
# "…/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
current=$("$ENVOY" --version | sed -n 's|.*version: [^/]*/\([0-9]*\.[0-9]*\)\..*|\1|p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

count=0
for policy in "$root"/policies/*.yaml; do
  name=$(basename "$policy" .yaml)
  for version in $(printf '%s\n' "$oldest" "$current" | sort -u); do
    out=$work/$name-$version
    "$bin/pointsman" render --policy "$policy" --providers "$root/envoy/providers" --envoy-version "$version" \
      --wasm "$wasm" --out "$out"
    [ "$version" = "$current" ] || continue
    # bootstrap.yaml loads its filters from files, which this mode does not read; validate.yaml contains everything.
    for file in bootstrap validate; do
      if ! said=$("$ENVOY" --mode validate --disable-hot-restart -l error -c "$out/$file.yaml" 2>&1); then
        printf '%s: Envoy %s refuses %s.yaml:\n%s\n' "$policy" "$version" "$file" "$said" >&2
        exit 1
      fi
    done
    count=$((count + 1))
  done
done
[ "$count" -gt 0 ] || { echo "no policy in $root/policies" >&2; exit 1; }
echo "Envoy $current accepts the configuration of $count policies; it was rendered for $oldest as well"
