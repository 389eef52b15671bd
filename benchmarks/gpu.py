"""Measures what a GPU saves, feature by feature, and how well its numbers agree with the CPU's. It needs no network.

    python benchmarks/gpu.py --out /tmp/gpu                          # on a machine with a GPU: under two minutes
    python benchmarks/gpu.py --out /tmp/gpu --device cpu --tiny      # every code path, without one

For each feature that is a network: seconds per clip on the CPU with one thread, on the GPU one clip at a time, the
GPU's share of what it reaches in a product of large matrices, its memory, and the largest difference of a value,
relative to the largest value of its array, and absolute. Then clips per second of the usual networks where several
processes share the GPU, as they do in `avbench measure`, and the sampling of AVFullDiT's bundled arm.
A second table holds bfloat16 beside float32 on the GPU, for the networks that ``--precision bf16`` is for.

The last line says whether the usual networks agree with the CPU's values as docs/speed.md requires; if one does not, or
one could not be compared, the exit status is 1.

Real weights are used where the cache has them; else random ones of the same shape, which cost the same. The largest
transformers have fewer blocks here, so that the CPU finishes; the table says so. Clips are those of the embedded world,
drawn at 256x256, and smooth noise of 832x480 with 81 frames. The same table is written to ``gpu.json``.
"""

import argparse
import contextlib
import functools
import inspect
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import nn

from avbench.core import Audio, Clip, InputError, first_line
from avbench.features.networks import exact
from avbench.features.table import feature_class
from avbench.storage.workers.gpu import is_out_of_memory
from avbench.storage.workers.worker_pool import default_workers, one_thread

ARM = "toy-t2av"
USUAL = ("i3d-k400", "lpips-alex", "musicnn")
"""The networks of the default metrics."""
TOLERANCES = {"i3d-k400": 1e-4, "lpips-alex": 1e-5, "lpips-vgg": 1e-5, "musicnn": 1e-4}
"""Feature → how much of the largest value its values may differ from the CPU's (docs/speed.md)."""
ROUNDS = 5
RATE = 16_000
SOME_BLOCKS = {"videomae-g-ssv2": 4, "vjepa2": 4, "synchformer": 2}
"""Feature → blocks of each transformer here, where the network has more."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    side: int = 256
    large: tuple[int, int, int] = (81, 480, 832)
    """Frames, height, width."""
    blocks: int | None = None
    """Of each transformer; as in SOME_BLOCKS where not given."""
    clips: int = 40
    """For each process that shares the GPU."""


TINY = Sizes(side=128, large=(17, 96, 160), blocks=1, clips=2)
JOBS = (
    ("synchformer", "five seconds"),
    ("i3d-k400", "large"),
    ("lpips-alex", "large"),
    ("lpips-vgg", "toy"),
    ("flow-raft", "four frames"),
    ("vbench-subject", "toy"),
    ("videomae-g-ssv2", "toy"),
    ("vjepa2", "toy"),
    ("vbench-background", "toy"),
    ("vbench-smoothness", "four frames"),
    ("panns-cnn14", "toy"),
    ("clap", "toy"),
    ("i3d-k400", "toy"),
    ("lpips-alex", "toy"),
    ("vggish", "toy"),
    ("musicnn", "toy"),
    (ARM, "sampled"),
)
"""Feature and clip, those that take the CPU longest first."""
IN_BFLOAT16 = (("i3d-k400", "toy"), ("i3d-k400", "large"), ("lpips-alex", "toy"), ("lpips-alex", "large"))
"""Feature and clip of the table of precisions."""

Answer = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    options = _options()
    sizes = TINY if options.tiny else Sizes()
    begin = time.monotonic()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU in the GPU's place"
    print_line(f"{card}; torch {torch.__version__}; {default_workers()} cores")
    with _processes(min(len(JOBS), max(1, default_workers() // 2))) as pool:
        on_cpu = {job: pool.submit(measured, *job, "cpu", sizes, 1) for job in JOBS}
        peak = product_speed(device)
        print_line(f"float32 products of large matrices: {peak / 1e12:.1f} TFLOP/s")
        on_gpu = {job: measured(*job, options.device, sizes, ROUNDS) for job in JOBS}
        batches = kept_on(batched, options.device)
        wait(on_cpu.values(), timeout=max(0.0, options.cpu_seconds - (time.monotonic() - begin)))
        rows = [row(job, finished(on_cpu[job]), on_gpu[job], peak) for job in JOBS]
    apart = disagreeing(rows)
    table(rows, ("feature", "clip", "cpu", "gpu", "times", "relative", "absolute", "gigabytes", "of_peak", "remark"))
    halved = [kept_on(in_both_precisions, *job, options.device, sizes) for job in IN_BFLOAT16]
    print_line("\nbfloat16 beside float32, on the device:")
    table(halved, ("feature", "clip", "float32", "bfloat16", "times", "relative", "absolute", "remark"))
    print_line(f"\nI3D's network alone, clips at a time: {batches}")
    shared = {count: kept_on(together, count, options.device, sizes) for count in options.processes}
    print_line(f"\nprocesses that share the device → clips/s through {', '.join(USUAL)}: {shared}")
    options.out.mkdir(parents=True, exist_ok=True)
    whole = {
        "device": card,
        "torch": torch.__version__,
        "cores": default_workers(),
        "flops_of_large_products": peak,
        "features": rows,
        "bfloat16": halved,
        "i3d_network_seconds_per_clip": batches,
        "disagreeing": apart,
        "clips_per_second_by_processes": shared,
        "seconds": round(time.monotonic() - begin, 1),
    }
    (options.out / "gpu.json").write_text(json.dumps(whole, indent=1))
    print_line(f"{whole['seconds']} s in all; {options.out / 'gpu.json'}")
    print_line("; ".join(apart) or f"{', '.join(TOLERANCES)} agree with the CPU as docs/speed.md requires")
    sys.exit(bool(apart))


def kept_on(work: Callable[..., Any], *given: Any) -> Any:
    """What a part of the benchmark finds; if it fails, for lack of memory for example, the sentence why."""
    try:
        return work(*given)
    except Exception as error:
        names = ("feature", "clip") if work is in_both_precisions else ()
        why = f"{type(error).__name__}: {first_line(error)}"
        return {**dict(zip(names, given, strict=False)), "remark": why} if names else why


def disagreeing(rows: list[Answer]) -> list[str]:
    """A sentence for each row of a usual network whose values differ from the CPU's, or that was not compared."""
    found = []
    for line in rows:
        most, differs = TOLERANCES.get(line["feature"]), line.get("relative")
        if most is None or (differs is not None and differs <= most):
            continue
        what = f"{line['feature']} on the clip {line['clip']!r}"
        tried = f"differs by {differs:.2g} of the largest value, and may by {most:g}" if differs is not None else None
        found.append(f"{what} {tried or 'was not compared: ' + line['remark']}")
    return found


def measured(name: str, clip: str, device: str, sizes: Sizes, rounds: int) -> Answer:
    """Seconds per clip (a median), values, and on a GPU memory and operations; or the sentence why there is nothing."""
    one_thread()
    torch.set_num_threads(1)
    try:
        if name == ARM:
            return sampled(device, rounds)
        look, remark = built(name, device, sizes)
        shown = clip_of(clip, sizes)
        cuda = torch.device(device).type == "cuda"
        if cuda:
            look(shown)  # the first call also loads the kernels
            torch.cuda.reset_peak_memory_stats(device)
        seconds, values = timed(lambda: look(shown), rounds)
        answer = {"seconds": seconds, "remark": remark, "values": _plain(values)}
        if cuda:
            answer["gigabytes"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
        return answer | ({"operations": operations(lambda: look(shown))} if rounds > 1 else {})
    except Exception as error:  # whatever one of them lacks, the others are measured
        return {"skipped": f"{type(error).__name__}: {first_line(error)}"}


def in_both_precisions(name: str, clip: str, device: str, sizes: Sizes) -> Answer:
    """Seconds per clip on the device in float32 and in bfloat16, and the differences of the values."""
    shown = clip_of(clip, sizes)
    line: Answer = {"feature": name, "clip": clip}
    values = {}
    for precision in ("float32", "bfloat16"):
        look, line["remark"] = built(name, device, sizes, precision)
        look(shown)
        line[precision], found = timed(lambda look=look: look(shown), ROUNDS)
        values[precision] = _plain(found)
    line["times"] = line["float32"] / line["bfloat16"]
    line["relative"], line["absolute"] = difference(values["float32"], values["bfloat16"])
    return line


def timed(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """The median of the seconds that it takes, and what it returns; results lie on the CPU, so they are waited for."""
    spent, result = [], None
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent), result


def operations(work: Callable[[], Any]) -> int:
    """Floating-point operations of the products and convolutions; those in one call of oneDNN are not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        work()
    return counted.get_total_flops()


def _plain(values: Any) -> dict[str, list[float]]:
    return {name: np.ravel(np.asarray(value, np.float64)).tolist() for name, value in values.items()}


def built(name: str, device: str, sizes: Sizes, precision: str = "float32") -> tuple[Callable[[Clip], Any], str]:
    """The feature with real weights where there are some, else with random ones, and what is to be said of it."""
    kind: Any = feature_class(name)
    if name not in SOME_BLOCKS:
        with contextlib.suppress(InputError):
            return kind(device=device, **({} if precision == "float32" else {"precision": precision})), "real weights"
    blocks = sizes.blocks or SOME_BLOCKS.get(name, 12)
    remark = "random weights" + (f", {blocks} blocks" if name in SOME_BLOCKS else "")
    return invented(name, device, functools.partial(INVENTED[name], blocks=blocks), precision), remark


def invented(name: str, device: str, fill: Callable[[Any], None], precision: str = "float32") -> Any:
    """A feature that was built without weights, to which `fill` has given networks."""
    torch.manual_seed(0)
    kind: Any = feature_class(name)
    stored = inspect.getattr_static(kind, "protocol")
    plain = getattr(stored, "_protocol", stored)  # without the hash of weights that are not there
    feature: Any = object.__new__(type(kind.__name__, (kind,), {"protocol": plain}))
    feature._device, feature._dtype = torch.device(device), getattr(torch, precision)
    feature.device = feature._device
    fill(feature)
    return feature


def _i3d(feature: Any, blocks: int) -> None:
    from avbench.features.video.i3d import network

    class Invented(network.TensorFlowCheckpoint):
        """Numbers with which the activations neither vanish nor grow."""

        def __init__(self) -> None:
            super().__init__({})
            self._random = np.random.default_rng(0)

        def _take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
            if "kernel" in name:
                return self._random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            return np.full(shape, float(name.endswith("var")))

    feature._network = network.Inception(Invented(), feature._device, feature._dtype)


def _lpips(feature: Any, blocks: int) -> None:
    from avbench.features.perceptual.trunk import Trunk

    net = feature.protocol.net
    trunk = Trunk(net)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    feature._trunk = _ready(trunk, feature).to(feature._dtype, memory_format=torch.channels_last)
    channels = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}[net]
    feature._heads = [torch.rand(count).to(feature.device) for count in channels]


def _musicnn(feature: Any, blocks: int) -> None:
    from avbench.features.audio.musicnn_network import Network

    feature._network = _ready(Network(), feature)


def _vggish(feature: Any, blocks: int) -> None:
    from avbench.features.audio.networks import VGGishNetwork

    feature._network = _ready(VGGishNetwork(), feature)


def _panns(feature: Any, blocks: int) -> None:
    from avbench.features.audio.networks import Cnn14

    network = Cnn14()
    nn.init.uniform_(network["logmel_extractor"]["melW"])
    feature._network = _ready(network, feature)


def _clap(feature: Any, blocks: int) -> None:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    feature._extractor = ClapFeatureExtractor(truncation="rand_trunc")  # as of laion/clap-htsat-unfused
    feature._model = _ready(ClapModel(ClapConfig()), feature)


def _dino(feature: Any, blocks: int) -> None:
    from avbench.features.vbench.consistency import Network, Shape

    feature._network = _ready(Network(Shape(depth=blocks)), feature)


def _clip(feature: Any, blocks: int) -> None:
    from open_clip import CLIP

    vision = {"image_size": 224, "layers": blocks, "width": 768, "patch_size": 32}
    text = {"context_length": 77, "layers": 1, "heads": 8, "width": 512}
    feature._network = _ready(CLIP(512, vision, text, quick_gelu=True), feature)  # type: ignore[arg-type]


def _amt(feature: Any, blocks: int) -> None:
    from avbench.features.vbench.smoothness import Network

    feature._network = _ready(Network(), feature)


def _raft(feature: Any, blocks: int) -> None:
    from torchvision.models.optical_flow import raft_large

    from avbench.features.flow.raft import RAFT

    feature._raft = RAFT(raft_large().eval().requires_grad_(False), feature._device)


def _synchformer(feature: Any, blocks: int) -> None:
    from avbench.features.sync.synchformer import Network, Shape

    feature._network = _ready(Network(Shape(depth=blocks, joint_depth=1)), feature)


def _videomae(feature: Any, blocks: int) -> None:
    from avbench.features.video.videomae import Network, Shape

    feature._network = _ready(Network(Shape(depth=blocks), feature.protocol.frames, feature.protocol.size), feature)


def _vjepa2(feature: Any, blocks: int) -> None:
    from transformers import VJEPA2Config, VJEPA2Model

    feature._model = _ready(VJEPA2Model(VJEPA2Config(num_hidden_layers=blocks, pred_num_hidden_layers=1)), feature)


INVENTED: dict[str, Callable[[Any, int], None]] = {
    "i3d-k400": _i3d,
    "lpips-alex": _lpips,
    "lpips-vgg": _lpips,
    "musicnn": _musicnn,
    "vggish": _vggish,
    "panns-cnn14": _panns,
    "clap": _clap,
    "vbench-subject": _dino,
    "vbench-background": _clip,
    "vbench-smoothness": _amt,
    "flow-raft": _raft,
    "synchformer": _synchformer,
    "videomae-g-ssv2": _videomae,
    "vjepa2": _vjepa2,
}
"""Feature → what gives it a network of random weights."""


def _ready(network: nn.Module, feature: Any) -> nn.Module:
    return network.eval().requires_grad_(False).to(feature._device)


def clip_of(kind: str, sizes: Sizes) -> Clip:
    """A clip with sound: of the embedded world, its first frames, it and its repetition; or large smooth noise."""
    if kind == "large":
        frames, height, width = sizes.large
        random = np.random.default_rng(0)
        coarse = torch.from_numpy(random.random((1, 3, frames // 8 + 2, height // 16, width // 16), np.float32))
        smooth = nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear")[0]
        return Clip((smooth * 255).byte().permute(1, 2, 3, 0).contiguous().numpy(), Fraction(16), _noise(frames / 16))
    from avbench.toyworld import picture
    from avbench.toyworld.scene import FAMILIES, random_scene
    from avbench.toyworld.world import simulate

    stage, truth = simulate(random_scene(next(iter(FAMILIES)), np.random.default_rng(0)), 0)
    frames = picture.draw(stage, truth.states, sizes.side)
    if kind == "four frames":
        frames = frames[:4]
    elif kind == "five seconds":
        frames = np.concatenate([frames, frames[::-1], frames])[:40]
    return Clip(frames, Fraction(8), _noise(len(frames) / 8))


def _noise(seconds: float) -> Audio:
    wave = np.random.default_rng(1).normal(0, 0.1, (1, round(RATE * seconds))).clip(-1, 1)
    return Audio(wave.astype(np.float32), RATE)


def sampled(device: str, rounds: int) -> Answer:
    """AVFullDiT's bundled arm: seconds per clip one at a time, and on a GPU sixteen at a time."""
    from avbench.avfulldit import BUNDLED
    from avbench.avfulldit.checkpoint import load
    from avbench.avfulldit.pipeline import Wish, make

    parts = load(BUNDLED[ARM])
    parts.dit.eval()
    parts.to(device)
    wishes = [Wish(f"bench-{k}", k, "a red ball falls", "a ball hits the ground") for k in range(16)]
    cuda = torch.device(device).type == "cuda"
    if cuda:
        make(parts, wishes[:1], 1)
    seconds, clips = timed(lambda: make(parts, wishes[:1], 1), rounds if cuda else 1)
    answer = {"seconds": seconds, "values": {"frames": np.ravel(clips[0].frames[::5].astype(float)).tolist()}}
    remark = "8-bit frames compared"
    if cuda:
        make(parts, wishes, 16)
        remark += f"; {timed(lambda: make(parts, wishes, 16), 2)[0] / 16:.4f} s a clip, sixteen at a time"
    return answer | {"remark": remark}


def batched(device: str) -> dict[int, float]:
    """Seconds per clip of I3D's network on ready input, for several clips at a time."""
    feature, _ = built("i3d-k400", device, Sizes())
    network = feature._network  # type: ignore[attr-defined]
    found = {}
    for count in (1, 2, 4, 8, 16) if torch.device(device).type == "cuda" else (1, 2):
        x = torch.randn(count, 3, 16, 224, 224).to(device).contiguous(memory_format=torch.channels_last_3d)
        try:
            with exact():
                network(x).cpu()
                found[count] = round(timed(lambda x=x: network(x).cpu(), ROUNDS)[0] / count, 5)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break  # more clips at a time take more
    return found


def together(processes: int, device: str, sizes: Sizes) -> float:
    """Clips per second through the usual networks by so many processes, which start measuring together.

    Raises:
        RuntimeError: one of them failed.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(processes), spawn.SimpleQueue()
    workers = [spawn.Process(target=_share, args=(barrier, answers, device, sizes)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    spans = sorted((answers.get() for _ in workers), key=lambda span: span == _ANOTHER)
    for worker in workers:
        worker.join()
    if failed := [span for span in spans if isinstance(span, str)]:
        raise RuntimeError(failed[0])
    begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
    return round(processes * sizes.clips / (end - begin), 2)


_ANOTHER = "another process failed"


def _share(barrier: Any, answers: Any, device: str, sizes: Sizes) -> None:
    one_thread()
    torch.set_num_threads(1)
    try:
        looks = []
        for name in USUAL:
            with contextlib.suppress(ImportError):
                looks.append(built(name, device, sizes)[0])
        clip = clip_of("toy", sizes)
        for look in looks:
            look(clip)
        barrier.wait()
        begin = time.monotonic()
        for _ in range(sizes.clips):
            for look in looks:
                look(clip)
        answers.put((begin, time.monotonic()))
    except threading.BrokenBarrierError:
        answers.put(_ANOTHER)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {first_line(error)}")
        barrier.abort()  # the others wait no longer


def product_speed(device: torch.device) -> float:
    """Operations per second of a product of large float32 matrices without TF32."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    with exact():
        (a @ b).sum().item()
        seconds, _ = timed(lambda: (a @ b)[0, 0].item(), ROUNDS)
    return 2 * side**3 / seconds


def finished(future: "Future[Answer]") -> Answer:
    """What a process found, or that it did not finish."""
    if not future.done():
        return {"skipped": "the CPU was not done in time"}
    return future.result()


def row(job: tuple[str, str], cpu: Answer, gpu: Answer, peak: float) -> Answer:
    """A row of the table."""
    line: Answer = {"feature": job[0], "clip": job[1], "cpu": cpu.get("seconds"), "gpu": gpu.get("seconds")}
    remarks = [gpu.get("remark"), gpu.get("skipped"), cpu.get("skipped")]
    line["remark"] = "; ".join(dict.fromkeys(filter(None, remarks)))
    line["gigabytes"] = gpu.get("gigabytes")
    if counted := gpu.get("operations"):
        line["of_peak"] = counted / gpu["seconds"] / peak
    if "values" in cpu and "values" in gpu:
        line["times"] = cpu["seconds"] / gpu["seconds"]
        line["relative"], line["absolute"] = difference(cpu["values"], gpu["values"])
    return line


def difference(ours: Answer, theirs: Answer) -> tuple[float, float]:
    """The largest difference relative to the largest value of its array, and the largest one."""
    relative, absolute = [0.0], [0.0]
    for name, values in ours.items():
        a, b = np.array(values), np.array(theirs[name])
        if a.shape != b.shape or not np.isfinite(a - b).all():  # events that one of them has
            return float("inf"), float("inf")
        if a.size:
            absolute.append(float(np.abs(a - b).max()))
            relative.append(absolute[-1] / max(float(np.abs(a).max()), 1e-12))
    return max(relative), max(absolute)


def table(rows: list[Answer], names: tuple[str, ...]) -> None:
    """Print rows under these names."""

    def cell(value: Any) -> str:
        return "-" if value is None else value if isinstance(value, str) else f"{value:.3g}"

    lines = [names, *([cell(line.get(name)) for name in names] for line in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    for line in lines:
        print_line("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@contextlib.contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each; those that are not done at the end are ended."""
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        left = [*(pool._processes or {}).values()]
        pool.shutdown(wait=False, cancel_futures=True)
        for process in left:
            process.terminate()


def print_line(line: str) -> None:
    """A line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small clips and networks, to try every code path")
    parser.add_argument("--cpu-seconds", type=float, default=60, help="when the CPU's times are no longer waited for")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8])
    return parser.parse_args()


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    main()
