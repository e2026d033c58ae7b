#!/usr/bin/env bash
# A gateway to try: a stock Envoy with policies/hybrid.yaml in front of simulated providers. Runs until Ctrl-C.
#
#   integration/demo.sh BIN_DIR WASM        (`make demo` builds both and calls this; ENVOY names the Envoy)
#
# Environment variables set the ports: DEMO_PORT 8080 (callers), DEMO_ADMIN_PORT 9901 (Envoy's admin interface),
# DEMO_PROVIDER_PORTS "18101 18102 18103" (vllm, ollama, openai). DEMO_LOG sets the access log.
set -euo pipefail

bin=${1:?the directory of the programs simulator and pointsman} wasm=${2:?the module}
: "${ENVOY:?names an Envoy; \`make demo\` installs one}"
root=$(cd "$(dirname "$0")/.." && pwd)
port=${DEMO_PORT:-8080} admin=${DEMO_ADMIN_PORT:-9901} log=${DEMO_LOG:-$root/target/demo/access.log}
read -r vllm ollama openai <<<"${DEMO_PROVIDER_PORTS:-18101 18102 18103}"

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
for check in "$port DEMO_PORT=8081" "$admin DEMO_ADMIN_PORT=9902" \
  "$vllm DEMO_PROVIDER_PORTS='28101 28102 28103'" "$ollama DEMO_PROVIDER_PORTS='28101 28102 28103'" \
  "$openai DEMO_PROVIDER_PORTS='28101 28102 28103'"; do
  if is_taken "${check%% *}"; then
    echo "port ${check%% *} is in use, perhaps by another demo; free it or choose another: ${check#* } make demo" >&2
    exit 1
  fi
done

work=$(mktemp -d) children=()
finish() {
  trap - EXIT INT TERM
  for child in "${children[@]}"; do kill -TERM "$child" 2>/dev/null || true; done
  wait || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until a program prints that it listens. If it does not, prints its output.
await() {
  local child=$1 file=$2 lines=$3
  for _ in $(seq 600); do
    if [ "$(grep -c '^listening on ' "$file" || true)" -ge "$lines" ]; then return; fi
    kill -0 "$child" 2>/dev/null || break
    sleep 0.1
  done
  echo "the demo did not start:" >&2
  cat "$file" >&2
  exit 1
}

"$bin/simulator" --listen "127.0.0.1:$vllm" --listen "127.0.0.1:$ollama" --listen "127.0.0.1:$openai" \
  --ttft-ms 150 --chunk-ms 30 >"$work/simulator.log" 2>&1 &
children+=($!)
await $! "$work/simulator.log" 3

mkdir "$work/providers" "$(dirname "$log")" -p
for provider in "vllm 18101 $vllm" "ollama 18102 $ollama" "openai 18103 $openai"; do
  read -r name usual actual <<<"$provider"
  sed "s/port_value: $usual/port_value: $actual/" "$root/envoy/demo/$name.yaml" >"$work/providers/$name.yaml"
done
: >"$log"
OPENAI_API_KEY=sk-the-demo-has-no-real-key "$bin/pointsman" up \
  --policy "$root/policies/hybrid.yaml" --providers "$work/providers" --envoy "$ENVOY" --wasm "$wasm" \
  --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin" --access-log "$log" >"$work/up.log" 2>&1 &
children+=($!)
gateway=$!
await $gateway "$work/up.log" 1

url=http://127.0.0.1:$port/v1
cat <<END

Pointsman is ready at $url. The providers behind it are simulated: no key needed, nothing leaves this machine.
Try in another terminal:

  # A completion. The headers say which model answered, and what it cost.
  curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-pro' \
-d '{"model":"chat","messages":[{"role":"user","content":"hello"}]}'

  # The same, streamed.
  curl -sN $url/chat/completions -H 'authorization: Bearer sk-demo-pro' \
-d '{"model":"summarize","stream":true,"messages":[{"role":"user","content":"hello"}]}'

  # A rejected request: the free tier does not include this model.
  curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-free' \
-d '{"model":"hosted-flagship","messages":[{"role":"user","content":"hello"}]}'

  # Too many requests: the free tier allows six per minute. The seventh gets 429 with retry-after.
  for i in 1 2 3 4 5 6 7; do \
curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-free' \
-d '{"model":"chat","messages":[{"role":"user","content":"hello"}]}' \
| grep -E '^(HTTP|retry-after:)'; done

  # The models a tenant may use, and its quota usage.
  curl -s $url/models -H 'authorization: Bearer sk-demo-free'
  curl -s $url/usage -H 'authorization: Bearer sk-demo-free'

OpenAI's Python client (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="$url", api_key="sk-demo-pro")
  answer = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello"}])
  print(answer.choices[0].message.content)

The audit log, one line per request and per attempt (caller, model, tokens, cost, latency):

  tail -f $log

Metrics: curl -s http://127.0.0.1:$admin/stats/prometheus | grep ^llm_
Edit policies/hybrid.yaml and save it: the change takes effect immediately. Ctrl-C stops everything.

END
# Show what pointsman prints from now on: policies applied or refused.
tail -n +2 -f "$work/up.log" &
children+=($!)
wait $gateway
