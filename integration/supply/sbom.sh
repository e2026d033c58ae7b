#!/usr/bin/env bash
# Writes what the module and the command are made of to target/sbom, as CycloneDX 1.5.
#
#     integration/supply/sbom.sh CARGO_CYCLONEDX
set -euo pipefail
cd "$(dirname "$0")/../.."
# The tool writes a file beside the manifest of each package of the workspace.
trap 'find . -name pointsman-sbom.json -not -path "./target/*" -delete' EXIT

bill() {
  "$1" cyclonedx -q --manifest-path "$2/Cargo.toml" --target "$3" --format json --spec-version 1.5 --no-build-deps \
    --override-filename pointsman-sbom
  mkdir -p target/sbom
  mv "$2/pointsman-sbom.json" "target/sbom/$4.cdx.json"
  echo "target/sbom/$4.cdx.json"
}
# The time of the commit, so that the same sources give the same bill.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
bill "$1" filter wasm32-wasip1 pointsman.wasm
bill "$1" cli x86_64-unknown-linux-gnu pointsman
