#!/usr/bin/env bash
# Installs the command, the module where the command finds it, and the files to start from.
#
#   cli/install.sh BIN_DIR WASM PREFIX        (`make install` builds both and calls this)
set -euo pipefail

bin=${1:?the directory of the program pointsman} wasm=${2:?the module} prefix=${3:?where to install}
root=$(cd "$(dirname "$0")/.." && pwd)
share=$prefix/share/pointsman
install -D -m 755 "$bin/pointsman" "$prefix/bin/pointsman"
install -D -m 644 "$wasm" "$share/pointsman.wasm"
install -d "$share/providers" "$share/policies"
install -m 644 "$root"/envoy/providers/*.yaml "$share/providers"
install -m 644 "$root"/policies/*.yaml "$root/policies/policy.schema.json" "$share/policies"
echo "installed $prefix/bin/pointsman; providers and policies to start from are in $share"
case :$PATH: in
*:$prefix/bin:*) ;;
*) echo "$prefix/bin is not in your PATH: export PATH=$prefix/bin:\$PATH" ;;
esac
