# make demo     set up, then a real Slurm, a stand-in CloudVision and the agent on this machine
# make test     set up, then every test, the ones against a real Slurm included
# make check    lint, types, layers, known vulnerabilities, then make test
# make package  a Debian package, an RPM and a single file, in dist/, with what they hold (CycloneDX)
# make image    the container image, and what it holds (CycloneDX) in dist/
# make bench    measure, and print the table of docs/performance.md (its page says how to renew it)
.DEFAULT_GOAL := help
.PHONY: help setup lab-packages test-packages demo test check lint types layers audit bench package image sbom lock clean

UV ?= $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PYTHON ?= $(shell lab/python)
export UV_PYTHON_DOWNLOADS = never

help:
	@sed -n 's/^# //p' Makefile

setup: .venv/.installed

.tools/bin/uv: requirements/uv.txt
	@lab/bootstrap

.venv/.installed: requirements/dev.txt pyproject.toml | $(if $(findstring /,$(UV)),$(UV))
	$(UV) venv -q --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync -q --compile-bytecode --python .venv --require-hashes requirements/dev.txt
	$(UV) pip install -q --python .venv --no-deps --no-build-isolation -e .
	.venv/bin/python -m compileall -q cvagent
	@touch $@

lab-packages:
	@lab/packages slurm

test-packages:
	@lab/packages slurm postgresql shells ssh docker

demo: setup lab-packages
	.venv/bin/cvagent demo

test: setup test-packages
	.venv/bin/pytest

check: lint types layers audit test

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup
	.venv/bin/mypy

layers: setup
	.venv/bin/lint-imports

audit: setup
	@.venv/bin/python package/audit.py

package: setup sbom
	.venv/bin/python package/build.py dist $(PYTHONS)
	@ls -sh dist

image: sbom
	docker build --build-arg REVISION=$$(git rev-parse HEAD) $(if $(CA),--secret id=ca,src=$(CA)) -t cvagent .

DIST ?= dist
sbom: setup
	@$(UV) venv -q --clear --python .venv/bin/python build/sbom
	@$(UV) pip sync -q --require-hashes --python build/sbom requirements/run.txt
	@mkdir -p $(DIST)
	@sed "s/^dynamic = .*/version = \"$$(.venv/bin/python -c 'import cvagent; print(cvagent.__version__)')\"/" pyproject.toml >build/pyproject.toml
	.venv/bin/cyclonedx-py environment --output-reproducible --pyproject build/pyproject.toml -o $(DIST)/cvagent.cdx.json build/sbom

bench: setup test-packages
	.venv/bin/python -m benchmarks

lock: | $(if $(findstring /,$(UV)),$(UV))
	$(UV) pip compile -q --universal --python-version 3.10 --generate-hashes --no-header pyproject.toml -o requirements/run.txt
	$(UV) pip compile -q --universal --python-version 3.10 --generate-hashes --no-header --group dev pyproject.toml -c requirements/run.txt -o requirements/dev.txt
	$(UV) pip compile -q --universal --python-version 3.10 --generate-hashes --no-header requirements/uv.in -o requirements/uv.txt
	$(UV) pip compile -q --universal --python-version 3.10 --generate-hashes --no-header requirements/build.in -c requirements/dev.txt -o requirements/build.txt

clean:
	rm -rf .venv .tools
