PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test fuzz lint format samples lock sbom clean

demo: $(VENV)/.installed
	$(BIN)/credit demo

# With bytecode, even where the environment keeps none: tests start some hundred processes, and each would compile again.
test: $(VENV)/.installed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Hours of hostile input, where the suite takes seconds: make fuzz FUZZ=100000
FUZZ ?= 2000
fuzz: $(VENV)/.installed
	CREDIT_FUZZ=$(FUZZ) $(BIN)/pytest tests/ingest tests/pipeline/test_ingest_outputs.py -k "damaged or spoilt or mixed or nothing_that_stands"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The reports under reports/samples, from a small fixed ledger; a test keeps them true.
samples: $(VENV)/.installed
	$(BIN)/python reports/render_samples.py

# Everything that an installation takes, with the hash of every file: pip install --require-hashes -r requirements.lock
lock: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	$(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra postgres --extra peft --extra big --extra ray --extra sepa --extra xlsx --constraint constraints.txt pyproject.toml --output-file requirements.lock

# A bill of materials of the environment, in CycloneDX.
sbom: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet 'cyclonedx-bom>=7'
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file sbom.json $(BIN)/python

clean:
	rm -rf $(VENV) credit-demo dist build sbom.json

# One environment for everything. All pins are in constraints.txt; pyproject.toml says what is really needed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "credit needs Python 3.11 or newer; run: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
