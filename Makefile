# Two commands on a bare machine: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check setup clean checkpoints

demo: $(VENV)/.ready
	$(BIN)/avbench run --limit 24 --out runs/demo

test: $(VENV)/.ready-dev
	$(BIN)/pytest -n auto --dist loadfile

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/avbench subsets lint

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

# The bundled checkpoints, made again: about 2½ hours on two cores with `make -j2 checkpoints`. It goes on where it
# stopped. One thread a training, because two trainings side by side use two cores better than one with two threads.
CK      := runs/checkpoints
BUNDLED := avbench/avfulldit/checkpoints
ONE     := OMP_NUM_THREADS=1 $(BIN)/avbench train
ARMS     = --video $(CK)/toy-video --audio $(CK)/toy-audio --examples $(CK)/examples --steps 5000 --out $(CK)/toy

checkpoints: $(CK)/toy-t2v/card.json $(CK)/toy-t2av/card.json
	$(ONE) arms $(ARMS)
	for name in toy-codecs toy-video toy-audio toy-t2v toy-t2av; do \
		mkdir -p $(BUNDLED)/$$name && cd $(CK)/$$name && \
		cp config.json model.safetensors card.json losses.csv $(CURDIR)/$(BUNDLED)/$$name/ && cd $(CURDIR); done

$(CK)/toy-codecs/card.json: $(VENV)/.ready-dev
	$(BIN)/avbench train codecs --out $(@D)
$(CK)/examples/card.json: $(CK)/toy-codecs/card.json
	$(BIN)/avbench train examples --codecs $(CK)/toy-codecs --out $(@D)
$(CK)/toy-%/card.json: $(CK)/examples/card.json
	$(ONE) tower $* --codecs $(CK)/toy-codecs --examples $(CK)/examples --steps 7000 --out $(@D)
$(CK)/toy-t2v/card.json: $(CK)/toy-video/card.json $(CK)/toy-audio/card.json
	$(ONE) arms --arm t2v $(ARMS)
$(CK)/toy-t2av/card.json: $(CK)/toy-video/card.json $(CK)/toy-audio/card.json
	$(ONE) arms --arm t2av $(ARMS)

clean:
	rm -rf $(VENV) runs
