# userfw: `make demo` runs the main job on real traffic, `make test` runs every test. Both do all set-up.
PYTHON ?= $(shell command -v /usr/bin/python3 || command -v python3)
VENV   ?= .venv
PY     := $(VENV)/bin/python

.PHONY: build lint
build:            ## compile the packet path in place
	$(PY) setup.py -q build_ext --inplace -j2

lint:             ## ruff and mypy --strict
	$(PY) -m ruff check . && $(PY) -m mypy
