# armferry: everything a contributor runs. Needs python3 (3.11 or newer), git and make; on Debian,
# as root, what else is missing is installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
SOURCES := $(shell find armferry -type f -not -name '*.pyc') pyproject.toml hatch_build.py LICENSE \
           $(wildcard README.md)
# What mypy reads; a room may have a conftest.py of its own, hence the explicit package bases.
CODE := $(wildcard armferry tests benchmarks fuzz tools/*.py hatch_build.py)
PYTEST := $(BIN)/pytest -n 2 --durations=40 --durations-min=5
# The tests of the rooms that decide, without programs beside Python.
DECIDING := tests/registers tests/stream tests/policy tests/decide
QUICK := not full and not qemu and not kernel

.PHONY: help man docs deb venv wheels rig lint test test-full coverage mutate demo bench fuzz faults live soak lock

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

venv: .venv/.wheel ## .venv with the built wheel of armferry and the developers' tools

.venv/.tools: pyproject.toml requirements.lock tools/bootstrap-debian
	tools/bootstrap-debian
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 is older than 3.11")'
	python3 -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# The wheel, not the working tree, is what the tests import.
.venv/.wheel: .venv/.tools $(SOURCES)
	rm -rf .venv/wheel
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --wheel-dir .venv/wheel .
	$(BIN)/pip uninstall --quiet --yes armferry
	wheel=$$(echo .venv/wheel/*.whl) && \
	    $(BIN)/pip install --quiet --disable-pip-version-check "$$wheel[dev]"
	touch $@

wheels: .venv/.tools ## dist/: the wheel for any machine, and the one for aarch64
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --wheel-dir dist .
	ARMFERRY_BOUNDARY_CC=aarch64-linux-gnu-gcc $(BIN)/pip wheel --quiet \
	    --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

man: venv ## dist/man: a page for each command
	$(BIN)/python tools/man_pages.py dist/man

docs: venv ## dist/site: the documentation as a site, links checked, without a warning
	[ -x .venv/docs/bin/mkdocs ] || { python3 -m venv .venv/docs; \
	    .venv/docs/bin/pip install --quiet --disable-pip-version-check \
	    --require-hashes -r tools/docs-requirements.txt; }
	.venv/docs/bin/mkdocs build --quiet --strict --site-dir dist/site
	! grep -rE --include='*.html' 'src="(https?:)?//|<link[^>]*href="(https?:)?//' dist/site

deb: wheels venv ## dist: Debian packages, for every machine and with the library for arm64
	$(BIN)/python tools/debian_packages.py dist dist

rig: venv ## the five QEMU releases and two libvirts, installed side by side in the cache
	tools/bootstrap-debian
	$(BIN)/armferry lab qemu install all
	$(BIN)/armferry lab libvirt install bookworm-backports trixie

lint: venv ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy --strict --explicit-package-bases $(CODE)

test: rig lint docs coverage ## lint, documentation and tests, in minutes
	$(PYTEST) -m "not full"

test-full: rig lint docs coverage ## lint and all tests, with the long sweeps
	$(PYTEST) -m ""

coverage: venv ## branch coverage of the rooms that decide, by their own tests alone
	$(BIN)/coverage run -m pytest -q --hypothesis-profile=few -m "$(QUICK)" $(DECIDING)
	$(BIN)/coverage report

mutate: venv ## changes in the rooms that decide that no test sees (MUTANTS=, SEED=)
	$(BIN)/python tools/mutate.py --mutants $(or $(MUTANTS),120) --seed $(or $(SEED),1)

# Needs the command alone and two QEMUs, fetched side by side; a .venv for developers serves too.
demo: ## a guest moved between QEMUs that refuse each other; its files are left in ./demo
	tools/bootstrap-debian demo
	[ -e .venv/.wheel ] || { [ -x $(BIN)/pip ] || python3 -m venv .venv; \
	    $(BIN)/pip install --quiet --disable-pip-version-check .; }
	$(BIN)/armferry lab qemu install 10.0.2 & first=$$!; \
	    $(BIN)/armferry lab qemu install 10.0.13; wait $$first
	$(BIN)/python -m armferry.lab.demo demo

bench: rig ## how fast the data path and the wrapper are
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.decision
	$(BIN)/python -m benchmarks.fleet
	$(BIN)/python -m benchmarks.fleet_plan
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.wrapper
	$(BIN)/python -m benchmarks.boundary

fuzz: venv ## every reader attacked, a minute of processor time each (SECONDS=, TARGETS=)
	$(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) $(TARGETS)

faults: venv ## the disk fails, or the program is killed, at every step of every writer
	$(BIN)/python -m fuzz.faults

live: rig ## real guests moved live while processes are killed (MOVES=), gateway and wrapper
	$(BIN)/python -m fuzz.live --moves $(or $(MOVES),200)
	$(BIN)/python -m fuzz.live --moves $(or $(MOVES),200) --wrapped

soak: venv ## moves without end through one gateway on networks that fail (MOVES=)
	$(BIN)/python -m fuzz.soak --moves $(or $(MOVES),1000)

lock: ## requirements.lock and tools/docs-requirements.txt made anew; needs uv
	echo hatchling | uv pip compile pyproject.toml - --extra dev --extra fleet --extra metrics --generate-hashes \
	    --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock" \
	    --output-file requirements.lock
	echo mkdocs | uv pip compile - --generate-hashes --universal --python-version 3.11 --no-annotate \
	    --custom-compile-command "make lock" --output-file tools/docs-requirements.txt
