# Everything a reader or contributor needs. `make` alone explains the targets.
PYTHON ?= python3
RUN := .venv/bin/python

# What JAX compiles for a test or a notebook serves again when the book runs it.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/_build/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.1

.DEFAULT_GOAL := help
.PHONY: help venv book pdf check test refresh lint lock clean

help:  ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv:
	@$(PYTHON) tools/venv.py

book: venv  ## run what changed and build the book in _build/html
	@$(RUN) book/build.py

pdf: book  ## print the book with Chromium or Chrome in _build/pdf
	@$(RUN) book/pdf.py

check: venv  ## test the built book: links, alt texts, offline, in a browser
	@$(RUN) -m pytest tests/book

test: venv  ## run the tests, the doctests and every notebook against its committed outputs
	@$(RUN) -m pytest -n auto --dist loadscope --no-loadscope-reorder -p no:benchmark --ignore tests/book \
		--doctest-modules --doctest-glob README.md --doctest-glob rerun.md \
		--nbval --nbval-current-env --nbval-kernel-startup-timeout 600 \
		notebooks stabcore tests README.md book/rerun.md

refresh: venv  ## execute the notebooks in place: the outputs that are committed
	@$(RUN) notebooks/run.py --refresh

lint: venv  ## ruff on code and notebooks, mypy on code
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy

lock: .venv/bin/uv  ## pin the dependencies of pyproject.toml in requirements.lock
	@.venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras \
		--generate-hashes --no-emit-index-url --no-emit-find-links -o requirements.lock
	@.venv/bin/uv pip compile pyproject.toml .binder/requirements.in --python-version 3.11 \
		--python-platform linux --extra networks --constraint requirements.lock --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links -o .binder/requirements.txt

# Not `venv`: after an edit of pyproject.toml the old lock need not be installed first.
.venv/bin/uv:
	@$(PYTHON) tools/venv.py

clean:  ## remove _build and caches (.venv stays)
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis
	@find stabcore tests book notebooks tools benchmarks -name __pycache__ -prune -exec rm -rf {} +
