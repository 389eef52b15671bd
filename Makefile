# Two commands on a bare machine: `make demo` and `make test`. Each sets up what it needs. `make test` runs the fast
# tests; `make test-all` runs all but the drill (docs/testing.md).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-all test-on-gpu check docs setup clean checkpoints

demo: $(VENV)/.ready
	$(BIN)/avbench run --limit 24 --out runs/demo

test: $(VENV)/.ready-dev
	$(BIN)/pytest -n auto --dist loadfile

test-all: $(VENV)/.ready-dev
	$(BIN)/pytest -n auto --dist loadfile -m "not drill"
	$(MAKE) test-on-gpu

# The tests of networks again, on a pretended GPU: whether all of a network is on its device.
NETWORKS := audio_aesthetics audio_networks desync dover flow_truth fvd_conventions i3d imagebind lip_sync lpips ms_clap \
	musicnn perception physics_judge speech vbench vbench_quality video_networks

test-on-gpu: $(VENV)/.ready-dev
	PYTHONPATH=tests $(BIN)/pytest -p pretended_gpu -m "not browser" $(NETWORKS:%=tests/test_%.py)

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/avbench subsets lint

docs: $(VENV)/.ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	$(BIN)/avbench weights fetch i3d-k400 lpips-alex musicnn-mtt
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --editable ".[dev]"
	$(BIN)/avbench weights fetch
	touch $@

# The bundled checkpoints, made again on this machine's GPU in about half an hour. It goes on where it stopped. Without a
# GPU the same towers take days; `avbench train` trains smaller ones.
CK      := runs/checkpoints
BUNDLED := avbench/avfulldit/checkpoints

checkpoints: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/gpu_kit.py --folder $(CK)
	for name in toy-audio toy-t2v toy-t2av; do \
		mkdir -p $(BUNDLED)/$$name && cd $(CK)/$$name && \
		cp config.json model.safetensors card.json losses.csv $(CURDIR)/$(BUNDLED)/$$name/ && cd $(CURDIR); done

clean:
	rm -rf $(VENV) runs
