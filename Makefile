# Two commands for someone new: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export UIC_SHARED_DATA ?= ../shared/data
# One numeric thread per process: work is spread over processes, and results do not depend on cores.
export OMP_NUM_THREADS ?= 1
# Without bytecode every `uic` compiles Beam, Feast and torch anew: seconds a start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test quick lint docs bench lock clean jars kafka
help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed  ## Make .venv from requirements.lock

# uv installs in under a minute what takes pip ten. On a machine without an NVIDIA GPU,
# UV_TORCH_BACKEND=cpu saves 2 GB.
$(VENV)/.installed: requirements.lock pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	touch $@

demo: install  ## The main job, on real data if it is there, else on the simulator
	$(BIN)/uic demo

# What runs a cluster or the whole system waits more than it works: two files of it at a time, whatever
# the cores. The rest goes on all of them.
HEAVY := slow or flink or kafka or chromium
test: lint quick  ## Lint, types, import rules and all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "$(HEAVY)" --durations=20

quick: install  ## The tests that a change needs while it is written, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not ($(HEAVY))"

docs: install  ## The documentation as a site, build/site/index.html; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: install  ## ruff, mypy, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What only the peers need is kept out of .venv.
.venv-bench/.installed: requirements.lock pyproject.toml
	rm -rf .venv-bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	VIRTUAL_ENV=.venv-bench .venv-bench/bin/uv pip install --quiet -r requirements.lock
	VIRTUAL_ENV=.venv-bench .venv-bench/bin/uv pip install --quiet -e '.[bench]'
	touch $@

bench: .venv-bench/.installed  ## Every benchmark, alone on the machine; renews docs/results.md
	.venv-bench/bin/python benchmarks/all.py

# Jars are fetched once: a Kafka broker for development and tests, and Flink's Kafka connector.
infra/jars/%/.fetched: jobs/stream/topics/poms/%/pom.xml
	rm -rf $(@D)
	mvn --quiet --batch-mode --no-transfer-progress -f $< \
		dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(@D)
	touch $@

jars: infra/jars/kafka/.fetched infra/jars/flink/.fetched  ## Fetch the jars of Kafka and Flink's connector (Maven)

kafka: install jars  ## Start a real Kafka broker on loopback; Ctrl-C stops it
	$(BIN)/uic events broker

# Two locks: everything, and what runs in production (infra/Dockerfile), the same versions.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 pyproject.toml
lock:  ## Compile requirements.lock and infra/requirements.lock from pyproject.toml
	$(LOCK) --extra test --extra docs --extra ui -o requirements.lock
	$(LOCK) -c requirements.lock -o infra/requirements.lock

sbom: install  ## Write build/sbom.json: what production runs, in CycloneDX
	mkdir -p build
	$(BIN)/uvx --from cyclonedx-bom==7.5.0 cyclonedx-py requirements infra/requirements.lock -o build/sbom.json

clean:  ## Remove what make made, but not the workspace
	rm -rf $(VENV) .venv-bench build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
