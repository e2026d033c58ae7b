#!/usr/bin/env bash
# Builds the module again from the committed sources, in another folder with another home for cargo, and compares it
# with the one that was built here.
#
#     integration/supply/reproduce.sh MODULE
set -euo pipefail
cd "$(dirname "$0")/../.."
module=$(realpath "$1")
if ! git diff --quiet HEAD; then
  echo "commit your changes first: the second build is made from the last commit" >&2
  exit 1
fi
filter/build.sh pointsman-filter -q

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git clone -q . "$folder/sources"
mkdir "$folder/cargo"
# The downloads are shared, under another path.
cp -r "${CARGO_HOME:-$HOME/.cargo}/registry" "$folder/cargo/registry"
for file in config.toml config; do
  if [ -f "${CARGO_HOME:-$HOME/.cargo}/$file" ]; then cp "${CARGO_HOME:-$HOME/.cargo}/$file" "$folder/cargo/"; fi
done
CARGO_HOME=$folder/cargo "$folder/sources/filter/build.sh" pointsman-filter -q
again=$folder/sources/target/wasm32-wasip1/release/pointsman.wasm

sha256sum "$module" "$again" | cut -d ' ' -f 1
cmp "$module" "$again"
echo "the same module twice"
