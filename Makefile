# `make run` and `make test` do all the set-up on a fresh Debian machine, as root.

# Debian's own: python3 on PATH may be a shim that takes 60 ms to find the interpreter.
PYTHON = $(shell test -x /usr/bin/python3 && echo /usr/bin/python3 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find runtime launcher tools/man_pages.py cli.py hatch_build.py pyproject.toml README.md LICENSE -type f \
	-not -name '*.pyc' -not -path runtime/init/init -not -path runtime/init/init-guest -not -path runtime/probe/probe 2>/dev/null)
BUILD_PACKAGES := gcc libc6-dev linux-libc-dev musl-tools libcap-dev python3 python3-dev python3-venv
# Engines that the conformance tests start themselves, with the runtime under test.
ENGINE_PACKAGES := containerd docker.io podman conmon buildah catatonit
# What images are made with, and where they are pulled from.
IMAGE_PACKAGES := docker-registry skopeo umoci apache2-utils openssl debootstrap
# What networks of the tests ask and answer with, and what carries those of ordinary users.
NETWORK_PACKAGES := nftables iproute2 iptables iperf3 bind9-dnsutils passt slirp4netns netavark aardvark-dns
TEST_PACKAGES := $(NETWORK_PACKAGES) busybox-static runc libarchive-tools pigz zstd util-linux uidmap iproute2 procps \
	passwd libseccomp2 groff-base tmux zsh fish \
	$(IMAGE_PACKAGES) golang-github-opencontainers-specs-dev $(ENGINE_PACKAGES)
# What the OCI validation suite is built with.
VALIDATION_PACKAGES := golang-go golang-github-opencontainers-runtime-tools-dev golang-github-mrunalp-fileutils-dev \
	golang-github-blang-semver-dev golang-github-google-uuid-dev golang-github-hashicorp-go-multierror-dev \
	golang-github-opencontainers-specs-dev golang-github-opencontainers-selinux-dev golang-github-sirupsen-logrus-dev \
	golang-gocapability-dev golang-github-urfave-cli-dev golang-github-xeipuuv-gojsonschema-dev golang-golang-x-sys-dev
# A kernel as an ordinary program, and the runtimes that prove the tests in it; the report is looked at in a browser.
VM_PACKAGES := busybox-static runc crun iproute2 util-linux user-mode-linux systemd dbus-daemon \
	dbus-system-bus-common qemu-system-x86 slirp e2fsprogs chromium fonts-dejavu-core
BENCH_PACKAGES := hyperfine crun runc bubblewrap busybox-static musl-tools gcc libc6-dev linux-libc-dev util-linux
# The tiers that have tests.  bench/ is never part of them.
TIERS = $(foreach tier,unit rootless privileged conformance vm,$(if $(wildcard tests/$(tier)/test_*.py),tests/$(tier)))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
.PHONY: run build test test-long lint bench bench-engines bench-profile bench-cgroups bench-images bench-containers bench-docker-py bench-network validation validation-suite \
	deps test-deps vm-deps bench-deps vm guest-kernel clean
.NOTPARALLEL:

# Who it is, what it sees, and that the host is safe from it.
run: deps build
	$(BIN)/warren run --rm host -- sh -c 'echo "process $$$$ on $$(hostname) sees" /proc/[0-9]*; id; cat /proc/self/uid_map'
	$(BIN)/warren run --rm host -- awk '$$2 ~ "^/[a-z]*$$" { print $$3, "on", $$2 }' /proc/self/mounts
	$(BIN)/warren run --rm host -- sh -c 'rm -rf /usr/share/doc; ls -d /usr/share/doc'; ls -d /usr/share/doc

build: $(VENV)/.built

# Installed as users will have it: a wheel, not editable, with compiled modules (a launch without costs 4 ms more).
$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	umask 022; $(BIN)/pip install --quiet --no-build-isolation --no-deps --force-reinstall --compile .
	@# The tests import the package from the tree.
	@cp $(VENV)/lib/python3*/site-packages/runtime/init/init* runtime/init/
	@cp $(VENV)/lib/python3*/site-packages/runtime/probe/probe runtime/probe/probe
	@touch $@

# Other users must be able to read the environment: the rootless tests run in it.
$(VENV)/.tools: pyproject.toml
	@test -n "$(PYTHON)" || { echo "warren: python3 is missing: run make deps as root" >&2; exit 1; }
	umask 022; test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(call pip,p["build-system"]["requires"] + p["project"]["dependencies"])
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.tools
	$(call pip,p["project"]["optional-dependencies"]["test"])
	@touch $@

# $(call pip,LIST): install the requirements that pyproject.toml (p) lists there.
define pip
	umask 022; $(BIN)/python3 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
		print(*($(1)), sep="\n")' >$@.list && $(BIN)/pip install --quiet --use-pep517 -r $@.list
endef

# $(call apt,PACKAGES): install those that dpkg does not know as installed, if any.  No service starts: policy-rc.d says
# 101, "action forbidden", while they are configured (invoke-rc.d(8)), unless the machine has a policy of its own.
define apt
	@missing=$$(for p in $(1); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "warren: this is not Debian: install what Debian calls" $$missing >&2; exit 1; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "warren: missing packages, install them as root:" $$missing >&2; exit 1; fi; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		trap "rm -f $$policy" EXIT INT TERM; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; fi; \
	apt-get update -qq -o Acquire::Retries=3 && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 $$missing
endef

deps:
	$(call apt,$(BUILD_PACKAGES))

test-deps: deps
	$(call apt,$(TEST_PACKAGES))

vm-deps: deps
	$(call apt,$(VM_PACKAGES))

# Debian's generic kernel, unpacked and not installed: the cloud kernel lacks 9p.
guest-kernel: build/guest-kernel/.done

build/guest-kernel/.done:
	$(call apt,qemu-system-x86 busybox-static criu)
	rm -rf $(@D) && mkdir -p $(@D) && apt-get update -qq -o Acquire::Retries=3
	cd $(@D) && package=$$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *//p') && \
		apt-get download -qq -o APT::Sandbox::User=root -o Acquire::Retries=3 "$$package" && \
		dpkg-deb -x "$$package"_*.deb . && rm "$$package"_*.deb && \
		busybox depmod -b "$$PWD" "$$(ls lib/modules)"
	@touch $@

bench-deps: deps
	$(call apt,$(BENCH_PACKAGES))

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The archive of the validation suite is none of ours: without it the rest is tested, and it is said.
test: test-deps vm-deps guest-kernel build lint
	$(MAKE) validation-suite || echo "warren: the validation suite cannot be built: its tests are left out" >&2
	$(BIN)/python3 -m pytest -q $(TIERS)

# Cgroup v2 with all its controllers, in a kernel of its own; a minute.
vm: vm-deps guest-kernel build $(VENV)/.test
	$(BIN)/python3 -m pytest -q tests/vm

# The long loops (kills, fuzzing, soaks) with their full counts, runc as a second oracle in user-mode Linux, and QEMU.
test-long: export WARREN_LONG := 1
test-long: test

# The OCI validation suite: Warren beside runc and crun; writes docs/conformance.md.
validation: test-deps bench-deps build validation-suite
	$(BIN)/python3 -m tests.bench.validation

# Built from its source; half a minute.
validation-suite: build/validation/.done

build/validation/.done: tests/conformance/validation/build.sh tests/conformance/validation/tap.go
	$(call apt,$(VALIDATION_PACKAGES))
	rm -rf $(@D) && tests/conformance/validation/build.sh $(CURDIR)/$(@D)
	@touch $@

# Warren beside crun, runc, bubblewrap and the bare system calls; writes docs/benchmarks.md.  ROUNDS=20 is quicker,
# BENCH_RUNTIMES="NAME=PATH ..." adds runtimes.
bench: bench-deps build
	$(BIN)/python3 -m tests.bench $(if $(ROUNDS),--rounds $(ROUNDS))

# dockerd and containerd on Warren beside the same on runc; into docs/benchmarks.md too.
bench-engines: test-deps bench-deps build
	$(BIN)/python3 -m tests.bench.engines $(if $(ROUNDS),--rounds $(ROUNDS))

# Where the time of one launch goes, step by step.
bench-profile: bench-deps build
	$(BIN)/python3 -m tests.bench --profile $(if $(ROUNDS),--rounds $(ROUNDS))

# What cgroups cost a launch here, and polling the statistics of 1,000 containers.
bench-cgroups: bench-deps build
	$(BIN)/python3 -m tests.bench.cgroups

# Pull and load beside podman, skopeo and umoci; into docs/benchmarks.md too.
bench-images: test-deps bench-deps build
	$(BIN)/python3 -m tests.bench.images $(if $(ROUNDS),--rounds $(ROUNDS))

# What a network costs a launch and what goes through it, beside podman and docker; into docs/benchmarks.md too.
bench-network: test-deps bench-deps build
	$(BIN)/python3 -m tests.bench.network $(if $(ROUNDS),--rounds $(ROUNDS))

# Commands for people beside podman's and docker's; into docs/benchmarks.md too.
bench-containers: test-deps bench-deps build
	$(BIN)/python3 -m tests.bench.containers $(if $(ROUNDS),--rounds $(ROUNDS))

# The library beside docker-py, which asks a dockerd on runc and on Warren; into docs/benchmarks.md too.
bench-docker-py: test-deps bench-deps build $(VENV)/.test
	$(BIN)/python3 -m tests.bench.docker_py $(if $(ROUNDS),--rounds $(ROUNDS))

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
