"""How a machine is measured before a training: the faster side is chosen, and a missing compiler stops nothing."""

import shutil

import pytest
import torch

from avbench.training import machine
from avbench.training.machine import Machine


@pytest.mark.parametrize(("compiled_seconds", "pays"), [(0.5, True), (0.95, False), (2.0, False)])
def test_compiles_where_compiled_steps_are_clearly_faster(monkeypatch, compiled_seconds, pays):
    monkeypatch.setattr(machine, "step_seconds", lambda _, *, compiled: compiled_seconds if compiled else 1.0)
    monkeypatch.setattr(machine, "_product_seconds", lambda dtype: 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Machine.measured().compile is pays


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_a_compiler_training_stays_eager(monkeypatch, tmp_path):
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    nothing = {"cpp.cxx": (str(tmp_path / "no-compiler"),), "fx_graph_cache": False}
    with config.patch(nothing), pytest.warns(UserWarning, match="blocks cannot be compiled here"):
        assert not machine.compiling_pays("float32")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("default")
def test_with_a_compiler_both_sides_are_timed(recwarn):
    assert machine.step_seconds("float32", compiled=True) > 0
    machine.compiling_pays("float32")
    assert not [one for one in recwarn if "cannot be compiled" in str(one.message)]
