# `make run` and `make test` do all the set-up on a fresh Debian machine, as root.

PYTHON := $(shell test -x /usr/bin/python3 && echo /usr/bin/python3 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find runtime launcher cli.py hatch_build.py pyproject.toml -type f \
	-not -name '*.pyc' -not -path '*/__pycache__/*' 2>/dev/null)
BUILD_PACKAGES := gcc musl-tools libcap-dev libc6-dev linux-libc-dev python3 python3-venv python3-dev
TEST_PACKAGES := busybox-static runc util-linux uidmap iproute2 procps passwd golang-github-opencontainers-specs-dev
TIERS := unit rootless privileged conformance
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run build test test-long lint deps test-deps clean

run: deps build
	$(BIN)/warren run host -- sh -c 'echo "process $$$$ on $$(hostname), kernel $$(uname -r)"; \
		echo "root here is id $$(awk "{print \$$2}" /proc/self/uid_map) on the host"; \
		ls / | wc -l | xargs echo "entries of the root that can be changed without the host noticing:"'

build: $(VENV)/.built

# Everything is installed as users will have it: a wheel, not editable, with compiled modules.
$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	umask 022 && $(BIN)/pip install --quiet --no-build-isolation --no-deps --force-reinstall .
	@# pip compiles unless the environment says otherwise; a launch without .pyc files costs 4 ms more.
	umask 022 && env -u PYTHONDONTWRITEBYTECODE $(BIN)/python3 -m compileall -q $(VENV)/lib/python3*/site-packages/runtime \
		$(VENV)/lib/python3*/site-packages/cli.py
	@touch $@

$(VENV)/.tools: pyproject.toml
	@test -n "$(PYTHON)" || { echo "warren: python3 is missing: run make deps as root" >&2; exit 1; }
	umask 022 && { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); }
	umask 022 && $(BIN)/pip install --quiet 'hatchling>=1.27' 'click>=8.1' 'pyroute2>=0.7' 'python-prctl>=1.8'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.tools
	umask 022 && $(BIN)/pip install --quiet 'pytest>=8' 'hypothesis>=6' 'ruff>=0.6' 'mypy>=1.11' 'jsonschema>=4' 'pyseccomp>=0.1'
	@touch $@

# $(call install,PACKAGES): what dpkg does not know as installed, if anything.
define install
	@missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" != 0 ]; then echo "warren: missing packages, install them as root:" $$missing >&2; exit 1; fi; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi
endef

deps:
	$(call install,$(BUILD_PACKAGES))

test-deps: deps
	$(call install,$(TEST_PACKAGES))

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: test-deps build lint
	$(BIN)/python -m pytest -q $(addprefix tests/,$(TIERS))

# The long loops (kills, fuzzing, soaks) with their full counts.
test-long: test-deps build lint
	WARREN_LONG=1 $(BIN)/python -m pytest -q $(addprefix tests/,$(TIERS))

clean:
	rm -rf $(VENV) build dist
