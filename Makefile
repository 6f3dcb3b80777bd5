# The two commands are `make demo` and `make test`. Both create .venv and install everything from PyPI first.
# They need Python 3.11 (3.10 and 3.12 may do) and make; without a C compiler, zig from PyPI is used.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Recursive on purpose: looked up only when the environment has to be made.
PYTHON = $(shell for p in python3.11 python3 python3.12 python3.10 python; do \
  "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' >/dev/null 2>&1 && echo "$$p" && break; done)

VENV := .venv
BIN := $(VENV)/bin
C_FILES := $(shell find runtime firmware_examples \( -name '*.[ch]' -o -name '*.inc' \) 2>/dev/null)
HOST_LIBRARY := CMakeLists.txt runtime/CMakeLists.txt $(shell find runtime/include runtime/src runtime/kernels runtime/host runtime/threads runtime/tflite -type f 2>/dev/null)
TYPECHECK := build/typecheck
BUILD_ARGS := --config-settings=cmake.define.BDNET_WERROR=ON

.PHONY: help demo test slow lint format wheel install clean distclean

help:
	@echo "make demo       install, then show the whole path on the digits network"
	@echo "make test       install, then run the tests (make slow: the long ones)"
	@echo "make lint       ruff, mypy, clang-format, cppcheck"
	@echo "make format     let ruff and clang-format rewrite the sources"
	@echo "make wheel      build dist/*.whl"
	@echo "make clean      remove builds and caches (make distclean: the environment too)"

demo: install
	$(BIN)/bdnet-deploy demo

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

slow: install
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

# mypy sees the package as it is installed: export/ inside bdnet_deploy/.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPECHECK)
	mkdir -p $(TYPECHECK)/bdnet_deploy
	ln -s $(CURDIR)/bdnet_deploy/* $(TYPECHECK)/bdnet_deploy/
	if [ -d export ]; then ln -s $(CURDIR)/export $(TYPECHECK)/bdnet_deploy/export; fi
	cd $(TYPECHECK) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(CURDIR)/.mypy_cache --python-executable $(CURDIR)/$(BIN)/python
	$(if $(C_FILES),$(BIN)/clang-format --dry-run -Werror $(C_FILES))
	if command -v cppcheck >/dev/null; then \
	  cppcheck --quiet --std=c99 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem --suppress=constStatement:runtime/kernels/v6m/conv_lut7.c \
	    --suppress=ctuuninitvar:runtime/kernels/neon64/dw_packed.c -I runtime/include -I runtime/src -I runtime/kernels \
	    runtime/src runtime/kernels runtime/host runtime/threads runtime/tflite; \
	else echo "cppcheck is not installed: skipped"; fi

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(C_FILES),$(BIN)/clang-format -i $(C_FILES))

wheel: install
	$(BIN)/python -m build --wheel

install: $(VENV)/.runtime-built

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "bdnet-deploy needs Python 3.10 to 3.12 (3.11 is tested): none found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "cannot create a virtual environment: install Python's venv module (Debian: python3-venv)" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml build_backend.py | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(BUILD_ARGS) --editable '.[dev]'
	touch $@

# The host library again when a C source is newer; two seconds, nothing is downloaded.
$(VENV)/.runtime-built: $(HOST_LIBRARY) $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(BUILD_ARGS) --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
