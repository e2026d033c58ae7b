#!/usr/bin/env bash
# Runs the fuzzer of one law, which `make fuzz` has built.
#
#     integration/fuzz/run.sh LAW SECONDS
set -euo pipefail
law=$1 seconds=$2
cd "$(dirname "$0")/../.."
found=target/fuzz-corpus/$law log=target/fuzz-corpus/$law.log artifacts=integration/fuzz/artifacts/$law
mkdir -p "$found" "$artifacts"
if ! "target/fuzz/$(uname -m)-unknown-linux-gnu/release/$law" "$found" "integration/fuzz/corpus/$law" \
    -artifact_prefix="$artifacts/" -max_total_time="$seconds" -print_final_stats=1 >"$log" 2>&1; then
  tail -n 40 "$log"
  echo "$law is broken" >&2
  exit 255  # Stops xargs.
fi
echo "$law: $(grep -ao 'number_of_executed_units: .*' "$log")"
