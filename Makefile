# Everything a contributor or a user types:
#
#   make setup   the environment in .venv, from the hashed lock (quick when nothing changed)
#   make demo    set up, then pretrain a small XLNet on text that ships with Python
#   make test    set up with the test tools, then run the whole suite
#   make lint    format check, lint, types, shell scripts, notebooks: what CI runs
#   make lock    resolve the dependencies anew (needs uv and the network)
#   make clean   remove the environment and everything generated
#
# Another interpreter: make setup PYTHON=python3.12

PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
# Exists while pip is at work: an environment that was left half-way is made anew.
BUSY := $(VENV)/.installing
# (--use-pep517: one package has no wheel, and builds only with its own tools fetched.)
# pip that fails by itself (no network, say) leaves a sound environment to go on from.
OR_STOP := || { rm -f $(BUSY); exit 1; }

.PHONY: setup setup-dev demo test lint lock clean check-venv
.DEFAULT_GOAL := setup

setup: check-venv
	@$(MAKE) --silent $(RUNTIME)

setup-dev: setup
	@$(MAKE) --silent $(DEV)

# An environment that was interrupted, moved with its folder, or lost its interpreter is thrown
# away here; so is anything in its place that this file did not make.
check-venv:
	@if [ -e $(VENV) ]; then \
	  if [ -e $(BUSY) ] || [ ! -e $(VENV)/.location ] \
	    || [ "$$(cat $(VENV)/.location)" != "$$(pwd -P)" ] || ! $(BIN)/python -c '' 2>/dev/null; \
	  then echo "$(VENV) is incomplete or was moved: making it anew"; rm -rf $(VENV); fi; fi

$(RUNTIME): requirements.lock pyproject.toml
	@if [ ! -e $(BIN)/python ]; then \
	  $(PYTHON) -c 'import sys; v = sys.version_info; \
	sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else "xlnet-jax needs Python 3.11, 3.12 or 3.13; \
	%s is Python %d.%d. Run again with PYTHON=python3.12, say." % (sys.executable, v[0], v[1]))' \
	  || exit 1; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; }; \
	  rm -rf $(VENV) && mkdir $(VENV) && touch $(BUSY) && $(PYTHON) -m venv $(VENV) \
	    && pwd -P > $(VENV)/.location || exit 1; fi
	@touch $(BUSY)
	@echo "installing the packages of requirements.lock into $(VENV): a few minutes, in silence"
	$(PIP) install -qq --use-pep517 --require-hashes -r requirements.lock $(OR_STOP)
	$(PIP) install -qq --no-deps --no-build-isolation --editable . $(OR_STOP)
	@rm -f $(BUSY) && touch $@
	@echo "ready: $(BIN)/xlnet-jax --help"

# torch is a peer for tests and benchmarks only: by version alone, whichever build pip finds.
$(DEV): requirements-dev.lock requirements-torch.txt $(RUNTIME)
	@touch $(BUSY)
	@echo "installing the packages of requirements-dev.lock into $(VENV): a few minutes, in silence"
	$(PIP) install -qq --use-pep517 --require-hashes -r requirements-dev.lock $(OR_STOP)
	$(PIP) install -qq -r requirements-torch.txt $(OR_STOP)
	@rm -f $(BUSY) && touch $@

demo: setup
	$(BIN)/python -m xlnet_jax.demo --workdir demo_run

test: setup-dev
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

lint: setup-dev
	$(BIN)/python -m pre_commit run --all-files --show-diff-on-failure

# One version of everything for all supported Pythons. The runtime lock is a part of the dev lock.
COMPILE := $(UV) --no-config pip compile pyproject.toml --universal --python-version 3.11 \
  --generate-hashes --fork-strategy fewest --no-annotate --quiet \
  --custom-compile-command "make lock" --group build

lock:
	$(COMPILE) --extra dev --group torch-needs --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info demo_run .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
