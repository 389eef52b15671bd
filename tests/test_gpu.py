"""Networks measure on a GPU as on the CPU; the tests that need one are skipped where there is none."""

import dataclasses
import functools
import gc
import operator
import weakref
from fractions import Fraction
from pathlib import Path

import dying_workers
import numpy as np
import pretended_gpu
import pytest
import torch
from torchvision.models.optical_flow import raft_large

import avbench
from avbench import api
from avbench.api import stages
from avbench.api.work import SamplingJob, Work
from avbench.core import Clip, Direction, HopelessError, InputError, Key, Prompt, Protocol
from avbench.features import current, devices, measure, networks, table
from avbench.features.flow.raft import RAFT
from avbench.features.perceptual.lpips import ConsecutiveLPIPS
from avbench.features.requirements import require_ready
from avbench.features.video.i3d import I3DLogits
from avbench.generation.providers import toyworld
from avbench.generation.providers.avfulldit import AVFullDiT
from avbench.generation.providers.python import OwnModel
from avbench.generation.sample import sample
from avbench.generation.table import Request
from avbench.metrics.evaluate import evaluate
from avbench.metrics.frechet import frechet_distance
from avbench.metrics.table import Metric
from avbench.storage.runs.features_cache import from_environment
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import gpu
from avbench.storage.workers.worker_pool import LocalPool
from avbench.subsets import loading

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

FULL = "CUDA out of memory. Tried to allocate 2 GiB."


class Gauge:
    """A feature that knows where it runs, and whose GPU is full on the last two of four clips."""

    protocol = Protocol("gauge", 1)
    on_gpu = True
    seen = 0

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def __call__(self, clip):
        if self.device != "cpu":
            type(self).seen += 1
            if type(self).seen > 2:
                raise RuntimeError(FULL)
        return {"value": 1.0}


@pytest.fixture
def folder(tmp_path):
    place = RunFolder(tmp_path / "toyworld")
    subset = loading.load("toy-object-contact").limited(2)
    list(sample(place, "toyworld:", {}, [subset], (0, 1))[1])
    return place


@pytest.fixture
def two_cards(monkeypatch):
    """A machine with two GPUs, to names and numbers; nothing can be computed on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@pytest.fixture
def gauge(monkeypatch):
    monkeypatch.setitem(table.FEATURES, "gauge", f"{__name__}:Gauge")
    monkeypatch.setattr(Gauge, "seen", 0)


def rows_of(folder, feature, device):
    list(measure.measure(folder, [feature], device=device)[1])
    return current.current_rows(folder, feature)


def test_devices_by_name(two_cards):
    assert devices.resolve("cpu") == ("cpu",)
    assert devices.resolve("auto") == devices.resolve("cuda") == devices.resolve("cuda:0,1") == ("cuda:0", "cuda:1")
    assert devices.resolve("cuda:1") == ("cuda:1",)
    assert devices.of_this_process("cuda:0,1") in ("cuda:0", "cuda:1")
    with pytest.raises(InputError, match="device 'cuda:2' is not there: torch sees 2 GPUs"):
        devices.resolve("cuda:2")
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        devices.resolve("gpu")


@pytest.mark.parametrize(
    ("capability", "builds", "runs"),
    [
        ((9, 0), ["sm_75", "sm_80", "sm_90"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_90"], True),
        ((12, 0), ["sm_90", "sm_120"], True),
        ((6, 1), ["sm_75", "sm_80", "sm_90"], False),
        ((10, 0), ["sm_80", "sm_90", "sm_90a"], False),
        ((12, 1), ["sm_90", "compute_90"], True),
        ((8, 0), ["sm_86"], False),
    ],
)
def test_auto_leaves_out_a_gpu_that_torch_was_not_built_for(two_cards, monkeypatch, capability, builds, runs):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability if device else (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: [*builds, "sm_90"])
    assert devices.resolve("auto") == (("cuda:0", "cuda:1") if runs else ("cuda:0",))
    if not runs:
        with pytest.raises(InputError, match=r"card 1 \(compute capability \d+\.\d\) is none of the GPUs that torch"):
            devices.resolve("cuda")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: builds)
        assert devices.resolve("auto") == ("cpu",)


@pytest.mark.parametrize("workers", [2, 4])
def test_the_workers_of_a_pool_share_the_gpus_out_evenly(tmp_path, workers):
    build = functools.partial(dying_workers.taking_turns, tmp_path)
    found = LocalPool(workers).map_unordered(build, [workers] * workers)
    assert sorted(turn % workers for _, turn in found) == [*range(workers)]
    assert devices.turn() == 0


def test_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve("auto") == ("cpu",)
    with pytest.raises(InputError, match="device 'cuda' is not there: torch sees no GPU here"):
        devices.resolve("cuda")


def test_a_device_that_is_not_there_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device 'cuda:0' is not there"):
        api.run("toyworld:", limit=1, out=tmp_path / "runs", device="cuda:0")
    assert not (tmp_path / "runs").exists()


def test_rows_name_the_gpu_and_a_full_one_leaves_clips_to_the_cpu(folder, two_cards, gauge):
    rows = rows_of(folder, "gauge", "cuda:1")
    assert sorted(str(row.gpu) for row in rows.values()) == ["None", "None", "card cuda:1", "card cuda:1"]
    assert rows_of(folder, "gauge", "cpu") == rows, "what a GPU measured is current on the CPU, too"


def test_another_error_on_the_gpu_is_not_taken_for_a_full_one(folder, two_cards, gauge, monkeypatch):
    def broken(self, clip):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Gauge, "__call__", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        rows_of(folder, "gauge", "cuda:0")


class TooLarge(Gauge):
    """A network that the GPU's memory does not hold."""

    loads = 0

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        if device != "cpu":
            type(self).loads += 1
            raise RuntimeError(FULL)


def test_a_network_that_a_gpu_does_not_hold_is_loaded_there_once_and_the_user_is_told(folder, two_cards, monkeypatch):
    monkeypatch.setitem(table.FEATURES, "gauge", f"{__name__}:TooLarge")
    monkeypatch.setattr(TooLarge, "loads", 0)
    metric, work = Metric("gauge", "gauge", f"{__name__}:values", Direction.NEITHER, "1", "Where?"), Work(0)
    stages.measured(folder, [metric], dataclasses.replace(work, device="cuda:1"))
    assert TooLarge.loads == 1
    assert [row.gpu for row in current.current_rows(folder, "gauge").values()] == [None] * 4
    (note,) = work.reporter.notes
    assert note.startswith("toyworld: the GPU's memory was full, so the CPU measured gauge of 4 clips; fewer workers")


@pytest.mark.parametrize(
    ("message", "full"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("cuFFT error: CUFFT_ALLOC_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED_LAYOUT", False),
    ],
)
def test_the_errors_of_a_full_gpu(message, full):
    assert gpu.is_out_of_memory(RuntimeError(message)) == full


@pytest.fixture
def lost_card(two_cards, monkeypatch):
    """A GPU with which an error of CUDA has left this process."""

    def failing(device):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: device == 0)
    monkeypatch.setattr(torch.cuda, "synchronize", failing)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: (3 + device) * 2**20)


def test_a_clip_after_which_the_gpu_is_lost_ends_the_run(tmp_path, lost_card):
    def model(request):
        if request.key.seed:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return Clip(np.full((4, 32, 32, 3), 99, np.uint8), Fraction(8))

    place = RunFolder(tmp_path / "run")
    subset = loading.load("toy-control").limited(3)
    _, made, _ = sample(place, "python:model", {}, [subset], (0, 1), generator=OwnModel(model))
    with pytest.raises(HopelessError, match=r"seed 1: .*device-side assert.* cannot use its GPU any more"):
        list(made)
    (kept,) = place.samples().values()
    assert kept.peak_gpu_memory_mib == 7.0, "of both cards"


def test_a_package_of_which_a_feature_loses_the_gpu_ends_the_measuring(folder, lost_card, gauge, monkeypatch):
    """Recorded as its failure, every network after it would fail with it."""

    def broken(self, clip):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Gauge, "__call__", broken)
    monkeypatch.setattr("avbench.features.worker.package_of", lambda feature: "somebodys 1.0")
    with pytest.raises(RuntimeError, match="device-side assert"):
        rows_of(folder, "gauge", "cuda:0")


def test_a_model_is_let_go_when_its_clips_are_made(tmp_path, monkeypatch):
    """Else it would fill the GPU for the processes that measure, and for the next model."""
    built, freed = [], []

    class Model(toyworld.ToyWorld):
        def __init__(self, target):
            super().__init__(target)
            built.append(weakref.ref(self))

    monkeypatch.setattr(toyworld, "ToyWorld", Model)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for name in ("device_count", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append([one() for one in built]))
    asked = SamplingJob([loading.load("toy-control").limited(1)])
    gc.collect()
    gc.disable()
    try:
        stages.sampled(tmp_path / "run", "toyworld:", asked, Work(0))
    finally:
        gc.enable()
    assert built and freed and not any(freed[-1])


def test_a_full_gpu_halves_the_batch_and_goes_on():
    asked = []

    def compute(part):
        asked.append(part.stop - part.start)
        if asked[-1] > 3:
            raise RuntimeError(FULL)
        return list(range(20))[part]

    assert [k for found in devices.in_batches(compute, 20, 16) for k in found] == list(range(20))
    assert asked == [16, 8, 4, *[2] * 10]

    def full(part):
        raise RuntimeError(FULL)

    with pytest.raises(RuntimeError, match="out of memory"):
        devices.in_batches(full, 20, 16)


@pytest.mark.parametrize("feature", ["i3d-k400", "lpips-alex"])
def test_a_network_is_wholly_on_its_device(folder, feature):
    kind = table.feature_class(feature)
    clip = avbench.load_clip(folder.path / next(iter(folder.samples().values())).path)
    on_cpu = kind()(clip)
    with pretended_gpu.pretended():
        look = kind("cuda:0")
        there = look(clip)
    assert look.protocol == kind.protocol
    for name, value in there.items():
        assert value == pytest.approx(on_cpu[name], abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", ["an arm", pytest.param("two towers", marks=pytest.mark.slow)])
def test_a_generator_is_wholly_on_its_device(tmp_path, kind):
    target, settings = "toy-t2av", {"steps": 1}
    if kind == "two towers":
        import tiny_towers  # it imports diffusers and transformers, which takes seconds

        target = "{0}/wan+{0}/tango".format(tiny_towers.build_pair(tmp_path))
        settings |= {"dtype": "float32", "frames": 9, "height": 32, "width": 32}
    asked = Request(Key("s", "a", 0), Prompt("a", "a red ball", audio_caption="a knock"), None)
    (on_cpu,) = AVFullDiT(target, device="cpu", **settings).generate([asked])
    with pretended_gpu.pretended():
        (there,) = AVFullDiT(target, device="cuda:0", **settings).generate([asked])
    assert np.array_equal(there.clip.frames, on_cpu.clip.frames)
    assert np.array_equal(there.clip.audio.waveform, on_cpu.clip.audio.waveform)


def test_the_pretended_gpu_refuses_what_a_real_one_does():
    with pretended_gpu.pretended():
        here, there = torch.ones(2, 3), torch.ones(2, 3).to("cuda:0")
        assert there.device == torch.device("cuda:0") and torch.zeros(1, device=there.device).is_cuda
        layer = torch.nn.Linear(3, 1).to("cuda:0")
        assert layer(there).is_cuda and torch.equal((there + there).cpu(), here + here)
        with pytest.raises(RuntimeError, match="linear takes tensors of one device"):
            layer(here)
        with pytest.raises(RuntimeError, match="add takes tensors of one device"):
            there + here
        numbers = torch.ones(1, 3, 4, 4, dtype=torch.uint8).to("cuda:0")
        with pytest.raises(
            NotImplementedError, match=r"upsample_bilinear2d.* is not implemented for torch\.uint8 on CUDA"
        ):
            torch.nn.functional.interpolate(numbers, (2, 2), mode="bilinear", align_corners=False, antialias=True)
        with pytest.raises(NotImplementedError, match=r"matmul is not implemented for torch\.uint8 on CUDA|mm is not"):
            numbers @ numbers
        with pytest.raises(RuntimeError, match="__getitem__ takes tensors of one device"):
            here[(there > 0)[:, 0]]
        with pytest.raises(RuntimeError, match="stack takes tensors of one device"):
            torch.stack([there.sum(), here.sum()])
        assert there[torch.tensor([0])].is_cuda and (there * here.sum()).is_cuda, "indices and numbers may be the CPU's"
        with pytest.raises(TypeError, match="cannot be a NumPy array"):
            np.add(there, 1)
        with pytest.raises(NotImplementedError, match="no implementation for CUDA"):
            torch.mkldnn_convolution(there[None], here[None], None, [0], [1], [1], 1)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_lpips_is_the_same_in_any_batch(most, monkeypatch):
    random = np.random.default_rng(0)
    clips = [random.integers(0, 256, (11, 64, 48, 3), np.uint8) for _ in range(2)]
    look = ConsecutiveLPIPS()
    found, trunk = [], look._trunk
    for most_frames in (1, most):

        def narrow(x, most_frames=most_frames):
            if len(x) > most_frames:
                raise RuntimeError(FULL)
            return trunk(x)

        monkeypatch.setattr(look, "_trunk", narrow)
        found.append((look.consecutive(clips[0]), look.between(clips)))
    (pairs, table_of_two), (again, table_again) = found
    assert pairs.shape == (10,) and again == pytest.approx(pairs, abs=1e-6)
    assert table_again == pytest.approx(table_of_two, abs=1e-6) and table_again[0, 1].min() > 0.05


def test_raft_keeps_the_correlations_of_no_pair():
    """Kept, those of large frames would fill a GPU beside those of the next pair, and between clips."""
    raft = RAFT(raft_large().eval().requires_grad_(False))
    raft(*np.zeros((2, 128, 128, 3), np.uint8), iterations=1)
    assert not raft._network.corr_block.corr_pyramid


def test_features_without_a_network_stay_on_the_cpu(folder, two_cards):
    assert {row.gpu for row in rows_of(folder, "onsets", "cuda").values()} == {None}


def test_a_score_says_in_a_note_where_it_was_measured_and_keeps_its_protocol(folder, two_cards, gauge):
    metric = Metric("gauge", "gauge", f"{__name__}:values", Direction.NEITHER, "1", "Where?")
    list(measure.measure(folder, ["gauge"])[1])
    (on_cpu,) = evaluate(folder, [metric])
    place = next((folder.path / "features").glob("gauge@*"))
    (place / "rows.jsonl").unlink()
    rows_of(RunFolder(folder.path), "gauge", "cuda:0")
    again = RunFolder(folder.path)
    (on_both,) = evaluate(again, [metric])
    assert on_both.protocol == on_cpu.protocol
    note = again.evaluation().protocols[on_both.protocol]["notes"]["device"]
    assert note == "Measured by CUDA on card cuda:0 (2 clips), on the CPU (2 clips)."


def values(columns):
    return columns["value"]


def test_the_features_cache_keeps_the_gpu(folder, two_cards, gauge, tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path / "cache"))
    rows = rows_of(folder, "gauge", "cuda:0")
    (folder.path / "features").rename(tmp_path / "moved")
    again = rows_of(RunFolder(folder.path), "gauge", "cpu")
    assert again == rows
    cache = from_environment()
    assert cache is not None and cache.verify() == (4, [])


def test_exact_inference_ignores_what_a_training_has_set_and_puts_it_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with networks.exact():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
            assert torch.is_inference_mode_enabled()
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.fixture
def as_torch_begins():
    """Puts torch's settings of precision back."""
    yield
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = torch.backends.mkldnn.fp32_precision = "none"
    torch.backends.mkldnn.conv.fp32_precision = torch.backends.mkldnn.rnn.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch below 2.9 has the old settings only")
@pytest.mark.parametrize("place", ["", "cuda.matmul", "cudnn", "cudnn.conv", "mkldnn.conv", "both"])
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_exact_inference_obeys_neither_the_new_settings_of_torch_nor_loses_them(place, precision, as_torch_begins):
    """A program that has used them cannot read the old ones any more: torch raises an error."""

    def settings():
        parts = (torch.backends, torch.backends.cudnn, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
        parts += (torch.backends.cuda.matmul, *(getattr(torch.backends.mkldnn, one) for one in ("conv", "matmul")))
        return [part.fp32_precision for part in parts]

    if place == "both":
        torch.set_float32_matmul_precision("high")
    named = place and place != "both"
    chosen = operator.attrgetter(place)(torch.backends) if named else torch.backends
    chosen.fp32_precision = precision
    before = settings()
    with networks.exact():
        assert settings()[2:] == ["ieee"] * 5
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert settings() == before


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    from benchmarks import gpu

    return gpu


def test_the_benchmark_says_where_a_gpu_differs(benchmark):
    ours, broken = {"logits": [1.0, 4.0]}, {"logits": [1.0, float("nan")]}
    assert benchmark.difference(ours, {"logits": [1.0, 3.0]}) == (0.25, 1.0)
    assert benchmark.difference(ours, broken) == (np.inf, np.inf), "no number on the GPU"
    assert benchmark.difference(broken, ours) == (np.inf, np.inf), "no number on the CPU"
    alike = {"feature": "i3d-k400", "clip": "toy", "relative": 9e-5, "remark": ""}
    rows = [alike, {**alike, "relative": 2e-4}, {**alike, "feature": "clap", "relative": 2e-4}]
    rows.append({"feature": "musicnn", "clip": "toy", "remark": "the CPU was not done in time"})
    assert benchmark.disagreeing(rows) == [
        "i3d-k400 on the clip 'toy' differs by 0.0002 of the largest value, and may by 0.0001",
        "musicnn on the clip 'toy' was not compared: the CPU was not done in time",
    ]


@pytest.mark.slow
def test_processes_of_the_benchmark_that_fail_end_it_with_their_reason(benchmark):
    with pytest.raises(RuntimeError, match=r"CUDA|NVIDIA"):
        benchmark.together(2, "cuda:77", benchmark.TINY)


@on_gpu
@pytest.mark.parametrize("feature", ["i3d-k400", "lpips-alex"])
def test_bfloat16_on_a_gpu_is_near_the_cpus(folder, feature):
    """Both round to 8 bits of a mantissa, but add in another order."""
    kind = table.feature_class(feature)
    clip = avbench.load_clip(folder.path / next(iter(folder.samples().values())).path)
    name = "logits" if feature == "i3d-k400" else "per_pair"
    on_cpu, there = (kind(device=device, precision="bfloat16")(clip)[name] for device in ("cpu", "cuda:0"))
    assert there == pytest.approx(on_cpu, abs=0.03 * abs(on_cpu).max())


@on_gpu
def test_fvd_of_a_gpus_logits_is_that_of_the_cpus():
    random = np.random.default_rng(4)
    clips = [random.integers(0, 255, (16, 64, 64, 3), np.uint8) // (1 + number % 2) for number in range(24)]
    found = []
    for device in ("cpu", "cuda:0"):
        logits = np.array([I3DLogits(device).logits(frames) for frames in clips])
        found.append(frechet_distance(logits[::2], logits[1::2]))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@on_gpu
@pytest.mark.parametrize(("feature", "tolerance"), [("i3d-k400", 1e-4), ("lpips-alex", 1e-5), ("musicnn", 1e-4)])
def test_a_gpu_agrees_with_the_cpu(folder, feature, tolerance):
    try:
        require_ready([feature])
    except InputError as lacking:
        pytest.skip(str(lacking))
    on_cpu = dict(rows_of(folder, feature, "cpu"))
    next((folder.path / "features").glob(f"{feature}@*/rows.jsonl")).unlink()
    there = rows_of(RunFolder(folder.path), feature, "cuda:0")
    assert there.keys() == on_cpu.keys() and there
    for key, row in there.items():
        assert row.gpu == torch.cuda.get_device_name(0)
        for name, value in row.values.items():
            assert value == pytest.approx(on_cpu[key].values[name], abs=tolerance, rel=tolerance)
