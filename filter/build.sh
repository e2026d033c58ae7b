#!/usr/bin/env bash
# Builds the modules for Envoy, so that the same sources and the same Rust compiler give the same bytes on any machine.
#
#     filter/build.sh PACKAGE…          options of cargo build may follow
#
# Panic messages contain the paths of source files. The flags below replace the parts that depend on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fetch -q --locked --target wasm32-wasip1
flags=("--remap-path-prefix=$PWD=/pointsman")
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
  flags+=("--remap-path-prefix=$sources=/crates")
done
listed=$(printf ', "%s"' "${flags[@]}")
packages=()
while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do packages+=(-p "$1"); shift; done
exec cargo build --release --locked --target wasm32-wasip1 \
  --config "target.wasm32-wasip1.rustflags=[${listed#, }]" "${packages[@]}" "$@"
