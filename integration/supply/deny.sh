#!/usr/bin/env bash
# Checks the dependencies by deny.toml: licences, sources, duplicates, and known vulnerabilities.
#
#     integration/supply/deny.sh CARGO_DENY
#
# The advisories come from RustSec's database on GitHub. Without a network they cannot be checked, and this says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
deny=$1

"$deny" --offline check -A unmatched-skip licenses bans sources
if timeout 120 "$deny" fetch db 2>/dev/null; then
  "$deny" --offline check advisories
else
  echo "warning: advisories not checked: RustSec's database could not be fetched from GitHub" >&2
fi
