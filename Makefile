# userfw: `make demo` runs the main job on real traffic, `make test` runs every test. Both do all set-up:
# Debian packages (only what is missing), a virtual environment, the compiled build in place. Stamps are under .make/.
PYTHON   ?= $(shell command -v /usr/bin/python3 || command -v python3)
VENV     ?= .venv
PY       := $(VENV)/bin/python
JOBS     ?= $(shell nproc)
SOURCES  := $(shell find userfw -name '*.pxd') $(wildcard $(patsubst %.pxd,%.py,$(shell find userfw -name '*.pxd')))
export PYTHONPATH := $(CURDIR):$(CURDIR)/hw:$(CURDIR)/netns-tests

.PHONY: help setup build test unit netns differential fuzz fuzz-rules lint conformance demo bench bench-engine bench-load bench-offload install uninstall clean
help:             ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

# ---- set-up ---------------------------------------------------------------------------------------------------------
setup: .make/build    ## packages, virtual environment, compiled build

.make/apt: .ci/debian-packages
	@mkdir -p .make
	@.ci/install-packages .ci/debian-packages
	@touch $@

# A linked .venv belongs to somebody else and is used as it is.
.make/venv: pyproject.toml Makefile .ci/requirements.py | .make/apt
	@set -e; if [ ! -L $(VENV) ]; then \
	    test -x $(PY) || $(PYTHON) -m venv $(VENV); \
	    $(PY) .ci/requirements.py pyproject.toml test dev interactive completion h323 > .make/requirements.txt; \
	    $(PY) -m pip install -qq --disable-pip-version-check -r .make/requirements.txt; \
	    printf '#!/bin/sh\nPYTHONPATH="%s:%s/hw" exec "%s/$(PY)" -m userfw "$$@"\n' "$(CURDIR)" "$(CURDIR)" "$(CURDIR)" > $(VENV)/bin/userfw; \
	    chmod +x $(VENV)/bin/userfw; \
	fi
	@touch $@

build: .make/build    ## compile the packet path in place (only what has changed)
.make/build: .make/venv setup.py $(SOURCES)
	@echo "building the packet path (log: .make/build.log)"
	@$(PY) setup.py -q build_ext --inplace -j$(JOBS) > .make/build.log 2>&1 || { tail -40 .make/build.log; exit 1; }
	@echo "$$(find userfw -name '*.so' | wc -l) of $$(find userfw -name '*.pxd' ! -name 'const.pxd' ! -name '__init__.pxd' | wc -l) modules compiled$$(command -v gcc cc >/dev/null || echo ': no C compiler, userfw runs interpreted')"
	@touch $@

# ---- tests ----------------------------------------------------------------------------------------------------------
test: .make/build     ## every test: lint, unit tests, namespace tests (as root)
	@$(PY) .ci/check.py lint unit netns

unit: .make/build     ## unit tests only
	$(PY) -m pytest -q -n $(JOBS) tests

netns: .make/build    ## namespace tests only (as root): kernel and userfw
	$(PY) -m pytest -q netns-tests -c netns-tests/pytest.ini

differential: .make/build  ## a million packets over thousands of rulesets through kernel and engine (as root); ARGS='--minutes 60 --seed 7'
	$(PY) -m fuzz $(ARGS)

flows: .make/build    ## XDP against the flowtable, packet for packet, over thousands of random flows (as root); ARGS='--flows 20000 --seed 7'
	$(PY) -m flows $(ARGS)

fuzz: .make/build     ## ten million mutated frames through the packet path; ARGS='--seed 7'
	$(PY) tests/fuzz/run.py --frames 10000000 --ruleset tests/fuzz/rules.nft $(ARGS)

fuzz-rules: .make/build    ## mutated rulesets, JSON, iptables rules and configurations, ten minutes; ARGS='--minutes 60 --seed 7'
	PYTHONPATH=$(PYTHONPATH):tests/fuzz:tests/nft $(PY) tests/fuzz/run_texts.py $(ARGS)

lint: .make/venv      ## ruff and mypy --strict
	@$(PY) .ci/check.py lint

conformance: .make/build   ## the nft corpora (USERFW_CONFORMANCE names their folder)
	$(PY) tests/nft/conformance.py

# ---- the main job, and how fast it is -------------------------------------------------------------------------------
demo: .make/build     ## the gateway in a lab of namespaces, checked (as root); KEEP=1 leaves it up
	@$(PY) -m demo

bench: .make/build    ## forwarding speed beside the kernel's (as root); ARGS='--list', '--rows TCP', '--json FILE'
	$(PY) -m bench.forwarding $(ARGS)

bench-engine: .make/build  ## nanoseconds per packet of the engine alone, by rung, expression and table size; a profile
	$(PY) -m bench.engine $(ARGS)

bench-load: .make/build    ## how long rulesets take to load, and how long packets wait meanwhile, beside nft's (as root)
	$(PY) -m bench.loading $(ARGS)

bench-offload: .make/build  ## XDP, tc and the software card beside nf_tables, packets made in the kernel (as root)
	$(PY) -m bench.offload $(ARGS)

# ---- installation ---------------------------------------------------------------------------------------------------
PREFIX   ?= /usr/local
PROGRAM  ?= /opt/userfw
INSTALLED := bin/userfw share/man/man8/userfw.8 share/man/man5/userfw.toml.5 share/bash-completion/completions/userfw \
	share/zsh/site-functions/_userfw lib/systemd/system/userfw.service lib/sysusers.d/userfw.conf share/doc/userfw

install: export PYTHONPATH =
install: .make/apt    ## the program into PROGRAM=/opt/userfw; command, manual, completions and unit under PREFIX=/usr/local
	@rm -rf build/lib.* build/bdist.*
	$(PYTHON) -m venv $(PROGRAM)
	$(PROGRAM)/bin/python -m pip install -q --disable-pip-version-check '.[interactive,completion]'
	@install -d $(PREFIX)/bin && ln -sf $(PROGRAM)/bin/userfw $(PREFIX)/bin/userfw
	@$(PROGRAM)/bin/python docs/manual.py .make/man
	@$(PROGRAM)/bin/userfw completion bash > .make/userfw.bash && $(PROGRAM)/bin/userfw completion zsh > .make/userfw.zsh
	@install -D -m 644 .make/man/userfw.8 $(PREFIX)/share/man/man8/userfw.8
	@install -D -m 644 .make/man/userfw.toml.5 $(PREFIX)/share/man/man5/userfw.toml.5
	@install -D -m 644 .make/userfw.bash $(PREFIX)/share/bash-completion/completions/userfw
	@install -D -m 644 .make/userfw.zsh $(PREFIX)/share/zsh/site-functions/_userfw
	@install -D -m 644 systemd/userfw.service $(PREFIX)/lib/systemd/system/userfw.service
	@install -D -m 644 -t $(PREFIX)/share/doc/userfw/userfw.service.d systemd/userfw.service.d/*.conf
	@install -D -m 644 systemd/userfw.sysusers $(PREFIX)/lib/sysusers.d/userfw.conf
	@install -d /etc/userfw
	@if [ -d /run/systemd/system ]; then systemd-sysusers $(PREFIX)/lib/sysusers.d/userfw.conf && systemctl daemon-reload; fi
	@$(PREFIX)/bin/userfw --version

uninstall:            ## what `make install` installed; /etc/userfw, /var/lib/userfw and the account stay
	@if [ -d /run/systemd/system ]; then systemctl disable --now userfw 2>/dev/null; true; fi
	rm -rf $(addprefix $(PREFIX)/,$(INSTALLED)) $(PROGRAM)
	@if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

clean:                ## remove what the build made (not the virtual environment)
	rm -rf build .make && find userfw hw -name '*.so' -delete
