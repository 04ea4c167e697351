# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ADAPTERS := .venv-adapters
RUNTIME := .venv-runtime
LOCKED := .venv-locked
# All extras that users install; a test compares them with pyproject.toml.
RUNTIME_EXTRAS := all,demo,fastembed,haystack,langchain,lancedb,llama-index,mcp,model2vec,opentelemetry,plot

.PHONY: help demo test test-adapters docs sbom licences lock locked release-notes lint format system-deps bench bench-prepare bench-seed bench-smoke bench-frontier bench-growth bench-filters bench-texts bench-server bench-grpc bench-postgres peers crash crash-peers clean

help:
	@echo "make demo        install into .venv and search Python's own docstrings"
	@echo "make test        install what the tests need, lint, type check, run the tests"
	@echo "make test-adapters  the tests of the server, of the engines beside folders, and of adapters to other libraries; the site"
	@echo "make docs        the pages of docs/ as a site in build/site"
	@echo "make sbom        what the package needs to run, with versions and licences, as build/sbom.json (CycloneDX)"
	@echo "make licences    whether all of that has a licence of release/licences.toml"
	@echo "make lock        requirements-dev.lock: what the tests need, to the exact version and hash"
	@echo "make locked      an environment with just these, .venv-locked"
	@echo "make release-notes VERSION=1.0.0  the part of CHANGELOG.md"
	@echo "make lint        style and types only"
	@echo "make crash       the long crash tests: 2,000 kills, every image of a power cut, 400 real cuts (about an hour)"
	@echo "make crash-peers the same power cuts for NoPokeDB and for other databases (as root; CUTS=20: half an hour)"
	@echo "make bench-seed  the benchmark table of README.md (about ten minutes, an idle machine)"
	@echo "make bench-frontier  indexes by themselves, queries a second against recall (about 40 minutes)"
	@echo "make bench-growth  one collection at several sizes (about 20 minutes)"
	@echo "make bench-filters  filters, text and hybrid search beside other databases (about 20 minutes; QUICK=1: two)"
	@echo "make bench       search, ingestion, memory and scaling beside every peer (hours for all sizes; QUICK=1: minutes)"
	@echo "make bench-prepare  only build the databases of make bench, which a busy machine can do"
	@echo "make bench-server  queries a second over REST beside an echo (about 15 minutes; QUICK=1: two)"
	@echo "make bench-grpc  the same over gRPC, with load from several processes (about 10 minutes; QUICK=1: one)"
	@echo "make bench-postgres  the PostgreSQL engine beside code by hand, on the same server (about five minutes)"
	@echo "make peers       install those other databases into .venv-peers"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { $(MAKE) system-deps && $(PYTHON) -m venv --clear $(VENV); }

# One stamp per set of extras: installed again when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@

# What adapters adapt to, and what makes the site: libraries whose versions are nothing to the rest.
$(ADAPTERS)/bin/python:
	$(PYTHON) -m venv $(ADAPTERS) || { $(MAKE) system-deps && $(PYTHON) -m venv --clear $(ADAPTERS); }

$(ADAPTERS)/.installed-%: pyproject.toml | $(ADAPTERS)/bin/python
	$(ADAPTERS)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@

# The package with all extras and nothing else, so that what it needs to run can be listed: not even pip is in it.
$(RUNTIME)/.installed: pyproject.toml | $(ADAPTERS)/bin/python
	$(ADAPTERS)/bin/python -m venv --clear --without-pip $(RUNTIME)
	$(ADAPTERS)/bin/python -m pip --python $(RUNTIME)/bin/python install --quiet --disable-pip-version-check ".[$(RUNTIME_EXTRAS)]"
	@touch $@

sbom: $(ADAPTERS)/.installed-release $(RUNTIME)/.installed
	@mkdir -p build
	$(ADAPTERS)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible --of JSON -o build/sbom.json $(RUNTIME)/bin/python

licences: sbom
	$(ADAPTERS)/bin/python -m release.licences build/sbom.json

# For all systems and versions of Python at once, from PyPI itself.
lock: $(ADAPTERS)/.installed-release
	$(ADAPTERS)/bin/uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
		--no-config --custom-compile-command "make lock" -o requirements-dev.lock

locked: $(ADAPTERS)/.installed-release
	$(ADAPTERS)/bin/uv venv --quiet --no-config --clear --python $(PYTHON) $(LOCKED)
	$(ADAPTERS)/bin/uv pip sync --quiet --no-config --python $(LOCKED)/bin/python --require-hashes requirements-dev.lock
	$(ADAPTERS)/bin/uv pip install --quiet --no-config --python $(LOCKED)/bin/python --no-deps -e .

release-notes:
	@$(PYTHON) -m release.notes "$(VERSION)"

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/ask_stdlib.py

# Debian keeps the part of Python that makes environments in a package of its own. FUSE and XFS are for the crash tests,
# Chromium for those of the console; they are skipped, and say so, where these are missing.
system-deps:
	@venv=""; tools=""; \
	$(PYTHON) -c "import ensurepip" 2>/dev/null || venv=python3-venv; \
	if [ -e /dev/fuse ]; then \
		command -v fusermount3 >/dev/null || tools="fuse3"; \
		command -v mkfs.xfs >/dev/null || [ -x /usr/sbin/mkfs.xfs ] || tools="$$tools xfsprogs"; \
	fi; \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || tools="$$tools chromium"; \
	if [ -z "$$venv$$tools" ]; then echo "nothing to install"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$venv $$tools || [ -z "$$venv" ]; \
	elif [ -n "$$venv" ]; then \
		echo "$(PYTHON) cannot make environments: install its venv module (Debian: python3-venv)"; exit 1; \
	else echo "some tests will be skipped, for want of:$$tools"; fi

# On all cores; `python -m pytest FILE` runs one after the other.
test: system-deps $(VENV)/.installed-test lint
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --engines embedded

# The same tests on the other engines, and the tests of the server itself. They start what they need. Then the adapters
# to other libraries, on all engines, the site, which its test builds as `make docs` does, and the licences of what the
# package needs to run.
test-adapters: system-deps $(VENV)/.installed-test $(ADAPTERS)/.installed-test-adapters $(ADAPTERS)/.installed-docs licences
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --engines postgres,rest,grpc
	$(ADAPTERS)/bin/mypy src/nopokedb/adapters/*.py docs/conf.py
	$(ADAPTERS)/bin/python -m pytest --numprocesses auto --dist worksteal tests/adapters

# Warnings are errors: pages that nothing leads to, links that lead nowhere, docstrings that cannot be read. test_site.py
# looks at what comes out.
docs: $(ADAPTERS)/.installed-docs
	rm -rf build/site
	$(ADAPTERS)/bin/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs build/site
	@echo "build/site/index.html"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crash: system-deps $(VENV)/.installed-test
	NOPOKEDB_CRASH_ROUNDS=1000 $(BIN)/python -m pytest tests/test_crash.py
	NOPOKEDB_SYSCALL_KILLS=1000 $(BIN)/python -m pytest tests/crash/test_syscalls.py
	PYTHONPATH=tests $(BIN)/python -m crash
	PYTHONPATH=tests $(BIN)/python -m crash.power ext4 200
	PYTHONPATH=tests $(BIN)/python -m crash.power xfs 200

# One run of one script over all databases; the table is printed and left in build/peers-report.txt.
CUTS ?= 20

crash-peers: system-deps $(VENV)/.installed-test peers
	PYTHONPATH=tests $(BIN)/python -m crash.peers --cuts $(CUTS)

bench-seed: $(VENV)/.installed-bench
	$(BIN)/python -m bench.seed --fresh

bench-smoke: $(VENV)/.installed-bench
	$(BIN)/python -m bench.seed --quick

# Indexes by themselves, queries a second against recall: ARGS="--counts 300000 --data embedding", --quick, --fresh
bench-frontier: $(VENV)/.installed-bench
	$(BIN)/python -m bench.frontier $(ARGS)

# One collection at several sizes: sealing, graphs, opening, single and many queries: ARGS="--counts 1000000"
bench-growth: $(VENV)/.installed-bench
	$(BIN)/python -m bench.growth $(ARGS)

# Embedded databases, in an environment of their own: their dependencies are none of this project's. One by
# one, because not each has wheels for each Python; the benchmark names those that are missing.
PEERS := .venv-peers

$(PEERS)/.installed: bench/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS) || { $(MAKE) system-deps && $(PYTHON) -m venv --clear $(PEERS); }
	grep -v '^#' $< | while read -r package; do \
	  $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "$$package" || echo "not installed: $$package"; \
	done
	@touch $@

peers: $(PEERS)/.installed

# More real texts, from Debian's packages. Package descriptions need no installation; without these there are fewer texts.
bench-texts:
	@packages="$$($(BIN)/python -c 'from bench.corpus import TEXT_PACKAGES; print(*TEXT_PACKAGES)')"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get install -y -qq --no-install-recommends $$packages || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$packages; } || true; \
	else echo "for more texts install these of Debian's packages: $$packages"; fi

# QUICK=1 is a smoke test; ARGS goes to the program: make bench-filters ARGS="--skip large"
bench-filters: $(VENV)/.installed-bench peers $(if $(QUICK),,bench-texts)
	$(BIN)/python -m bench.filters $(if $(QUICK),--quick) $(ARGS)

# Databases are built first, one after the other, then asked in turn. ARGS as above: make bench ARGS="--only search-100k"
bench: $(VENV)/.installed-bench peers $(if $(QUICK),,bench-texts)
	$(BIN)/python -m bench.suite $(if $(QUICK),--quick) $(ARGS)

bench-prepare: $(VENV)/.installed-bench peers $(if $(QUICK),,bench-texts)
	$(BIN)/python -m bench.suite --prepare $(if $(QUICK),--quick) $(ARGS)

# wrk makes the load.
bench-server: $(VENV)/.installed-test
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq wrk; }
	$(BIN)/python -m bench.server $(if $(QUICK),--quick) $(ARGS)

bench-grpc: $(VENV)/.installed-test
	$(BIN)/python -m bench.server.rpc $(if $(QUICK),--quick) $(ARGS)

# ARGS="--dsn postgresql://..." measures on that server; QUICK=1 is a smoke test.
bench-postgres: $(VENV)/.installed-bench
	$(BIN)/python -m bench.postgres $(if $(QUICK),--quick) $(ARGS)

clean:
	rm -rf $(VENV) $(ADAPTERS) $(RUNTIME) $(LOCKED) $(PEERS) .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
