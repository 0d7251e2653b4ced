# make pretrain            train the small default model on this machine
# make sample ARGS="tiny-1a2b3c4d --count 16"
# make shell               a shell in which python is the one of the virtual environment
VENV  ?= .venv
ARGS  ?=
TORCH ?= torch==2.13.*
comma := ,
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check install --quiet --progress-bar off

# The shell's own directory, also under make -C: commands that a job shows are written for it.
export ELF_CALLED_FROM := $(PWD)

.DEFAULT_GOAL := help
.PHONY: help install shell pretrain prepare sample evaluate track import_elf test test-slow lint ruff mypy clean

help:  ## this list
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

install: $(VENV)/.installed  ## the virtual environment, once; everything below does it by itself

shell: $(VENV)/.installed  ## a shell in the virtual environment: python, mlflow and ray are its own; leave it with exit
	@. $(VENV)/bin/activate && exec "$${SHELL:-sh}"

pretrain: $(VENV)/.installed  ## install once, then train; recipe and settings in ARGS, e.g. ARGS="--help"
	@$(PY) jobs/pretrain.py $(ARGS)

prepare: $(VENV)/.installed  ## prepare text without training, inspect or verify it; ARGS="--help"
	@$(PY) jobs/prepare.py $(ARGS)

sample: $(VENV)/.installed  ## draw text from a run; ARGS="RUN --count 16"
	@$(PY) jobs/sample.py $(ARGS)

evaluate: $(VENV)/.installed  ## score samples or texts; ARGS="--help"
	@$(PY) jobs/evaluate.py $(ARGS)

track: $(VENV)/.installed  ## list runs, or send their figures; ARGS="list"
	@$(PY) jobs/track.py $(ARGS)

import_elf: $(VENV)/.installed  ## turn the authors' weights into an artefact; ARGS="--help"
	@$(PY) jobs/import_elf.py $(ARGS)

test: $(VENV)/.installed-test  ## the quick tests; pytest options in ARGS
	@$(PY) -m pytest $(ARGS)

test-slow: $(VENV)/.installed-test  ## the tests that start real processes and train
	@$(PY) -m pytest -m slow $(ARGS)

lint: ruff mypy  ## ruff and mypy

ruff: $(VENV)/.installed-dev
	@$(PY) -m ruff check --output-format concise .

mypy: $(VENV)/.installed-dev
	@$(PY) -m mypy

clean:  ## remove the virtual environment and caches (no run and no data)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache platform/*.egg-info model/*.egg-info *.egg-info

# pip's output goes to a file, and is shown when it fails.
define install
	@echo "Installing $(1) into $(VENV) (once; one to three minutes the first time; what pip says: $(VENV)/install.log) ..."
	@{ $(2); } > $(VENV)/install.log 2>&1 || { tail -n 40 $(VENV)/install.log; echo "Installing failed; all of pip's output is in $(VENV)/install.log"; exit 1; }
endef

$(VENV)/bin/python:
	@for candidate in $(PYTHON) python3.11 python3.12 python3; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2> /dev/null; then \
	    $$candidate -m venv $(VENV) && exit 0 || exit 1; \
	  fi; \
	done; \
	echo "Python 3.11 or 3.12 is needed, but none was found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1

# torch is asked for by itself first, so that an index with CPU-only builds gives the CPU build of this version.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(call install,the project,$(PIP) "$(TORCH)" && $(PIP) -e .)
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.installed
	$(call install,the test tools,$(PIP) -e ".[test]")
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed-test
	$(call install,the development tools,$(PIP) -e ".[test$(comma)dev]")
	@touch $@
