"""Carries out the study "does hearing help seeing?" by a plan (plan.toml); goes on where it stopped.

    python -m benchmarks.hearing.study --folder runs/hearing                  # everything
    python -m benchmarks.hearing.study --folder runs/hearing --trainers 2     # two trainings at a time on a GPU
    python -m benchmarks.hearing.study --folder runs/ablations --plan benchmarks/hearing/ablations.toml   # on a CPU
    python -m benchmarks.hearing.study --folder runs/ablations --plan benchmarks/hearing/few_clips.toml   # after it
    python -m benchmarks.hearing.study --folder runs/ablations --plan benchmarks/hearing/controls.toml    # after it
    python -m benchmarks.hearing.study --folder /tmp/tiny --tiny              # a few minutes on a CPU: does it work?

Examples are made (or taken from ``--examples``), the two towers are trained, then the arms in rounds of seeds. Each
checkpoint is sampled and measured by other processes while the next is trained. Runs lie in ``runs/ARM-SEED``. At
the end the tables and figures are written to ``report/PLAN``; after each round of seeds there is enough for
``python -m benchmarks.hearing.report``, which writes them of what is there.

Ctrl-C and SIGTERM end all processes of the study, and so does the end of any one of them; the same command goes on.
While one runs, a second in the same folder is refused.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from avbench import api
from avbench.avfulldit import checkpoint
from avbench.core import InputError
from avbench.storage.reading import read_json
from avbench.storage.workers.worker_pool import end_with_program
from avbench.storage.writing import locked, write_json
from avbench.training import train
from avbench.training.examples import CAPTIONS, CARD, Examples
from avbench.training.machine import Machine, silence_torch
from benchmarks.gpu_kit import print_line
from benchmarks.hearing.plans import PLAN, read_plan
from benchmarks.hearing.report import errors_as_sentences, write_report
from benchmarks.hearing.trainings import Study, train_arm, train_tower

ALL_TRAINED = "trained"
"""A file of the study's folder, written when no training is left."""
TRAINED = "python:benchmarks.hearing.generator:Trained"
MACHINE, REPORT = "machine.json", "report"
_SAMPLED_AT_ONCE = {"cuda": 96, "cpu": 8}


def main() -> None:
    """Begin or go on. A mistake is one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    options = _options()
    try:
        with errors_as_sentences(), locked(options.folder / ".lock", lambda: _refuse(options.folder)):
            plan = plan_of(options)  # what is wrong in it is said before anything begins
            carry_out(options)
            write_report(plan, options.plan.name, options.folder / REPORT / options.plan.stem, options.folder)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; the same command goes on.\n")
        sys.exit(130)


def _refuse(folder: Path) -> None:
    msg = f"{folder} is being written by another run of the study; wait for it, or choose another --folder"
    raise InputError(msg)


def carry_out(options: argparse.Namespace) -> None:
    """Run all processes until they are done, and end all of them if one fails or this one is stopped."""
    processes = [_process(run_examples, options)] if options.examples is None else []
    options.examples = options.examples or options.folder / "examples"
    (options.folder / ALL_TRAINED).unlink(missing_ok=True)
    machine = machine_of(options)
    trainers = [_process(run_trainer, options, machine, number) for number in range(options.trainers)]
    everyone = [*processes, *trainers, _process(run_measuring, options, machine)]
    try:
        for process in everyone:
            process.start()
        while any(process.is_alive() for process in everyone):
            if any(process.exitcode for process in everyone):  # the others may wait for what it makes
                break
            if not any(process.is_alive() for process in trainers):
                (options.folder / ALL_TRAINED).touch()
            time.sleep(0.2)
    finally:
        for process in everyone:
            if process.is_alive():
                process.terminate()
                process.join()
    if any(process.exitcode for process in everyone):
        sys.exit("a process of the study failed; the same command goes on")


def _process(work: Callable[..., None], *given: Any) -> Any:
    return multiprocessing.get_context("spawn").Process(target=_work_as_child, args=(work, *given))


def _work_as_child(work: Callable[..., None], *given: Any) -> None:
    end_with_parent()
    with errors_as_sentences():
        work(*given)


def end_with_parent() -> None:
    """Let this process end when its parent does, however that ends; Ctrl-C is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_program()


@contextmanager
def measuring_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that measure. They end in the middle of their work where this process is terminated or dies."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        yield pool
    except BaseException:
        for process in [*(pool._processes or {}).values()]:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def run_examples(options: argparse.Namespace) -> None:
    """Make the examples."""
    clips = plan_of(options)["examples"]["clips"]
    for _ in train.make_examples("toyworld", clips, 0, options.folder / "examples", options.workers):
        pass


def plan_of(options: argparse.Namespace) -> dict[str, Any]:
    """The plan, or what is left of it at tiny size."""
    plan = read_plan(options.plan)
    if options.tiny:
        plan["examples"]["clips"] = 40
        for what in ("video", "audio"):
            plan["towers"][what] = {"steps": 4, "batch": 4, "width": 64, "heads": 1, "layers": 2}
        plan["towers"]["video"]["levels"] = [8, 16]
        plan["joint"]["layers"] = 1
        plan["training"] |= {"steps": 80, "batch": 2, "warmup": 1, "link_steps": 1}
        plan["arm"] = [
            {**arm, "seeds": 2 if arm["name"] in ("t2v", "t2av") else 1, **({"clips": 20} if "clips" in arm else {})}
            for arm in plan["arm"]
        ]
    return plan


def machine_of(options: argparse.Namespace) -> Machine:
    """How the study trains: chosen when it begins, and kept, because another precision would be another training."""
    kept = options.folder / MACHINE
    if not kept.exists():
        _set_torch(options.threads)
        write_json(kept, asdict(Machine("cpu", "float32") if options.tiny else Machine.measured()))
    return read_json(kept, Machine)


def study_of(options: argparse.Namespace, machine: Machine) -> Study:
    """The study in its folder, once its examples are begun."""
    while not all((options.examples / name).exists() for name in (CARD, CAPTIONS)):
        time.sleep(0.2)
    return Study(plan_of(options), options.folder, machine, Examples.open(options.examples))


def run_trainer(options: argparse.Namespace, machine: Machine, number: int) -> None:
    """Train this trainer's share of the towers, and once both exist its share of the arms."""
    _set_torch(options.threads)
    study = study_of(options, machine)
    for index, what in enumerate(("audio", "video")):
        if index % options.trainers == number:
            _follow(f"tower {what}", train_tower(study, what))
    for what in ("audio", "video"):
        while not (study.tower(what) / checkpoint.CONFIG).exists():
            time.sleep(0.2)
    for arm, seed in study.trainings()[number :: options.trainers]:
        _follow(f"{arm.name}-{seed}", train_arm(study, arm, seed))


def _set_torch(threads: int) -> None:
    silence_torch()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")


def _follow(name: str, steps: Any) -> None:
    start, last = time.perf_counter(), None
    for at in steps:
        last = at
    if last is not None:
        seconds = time.perf_counter() - start
        video, audio = (f"{loss:.4f}" if loss is not None else "–" for loss in (last.video_loss, last.audio_loss))
        print_line(f"{name}: {last.step} steps, {seconds:.0f} s ({last.seconds:.0f} s of steps), loss {video} {audio}")


def run_measuring(options: argparse.Namespace, machine: Machine) -> None:
    """Sample and measure every checkpoint as it appears."""
    study = study_of(options, machine)
    wanted = [
        f"{arm.name}-{seed}{suffix}"
        for arm, seed in study.trainings()
        for suffix in [*(f"@{step}" for step in study.along(arm)), ""]
    ]
    pending: dict[Future[None], str] = {}
    left = list(wanted)
    failed = []
    over = False
    with measuring_pool(options.workers) as pool:
        while left or pending:
            for name in list(left):
                if (study.folder / "checkpoints" / name / checkpoint.CONFIG).exists():
                    left.remove(name)
                    pending[pool.submit(measure, options, study.machine.device, name)] = name
            for future in [future for future in pending if future.done()]:
                name = pending.pop(future)
                if error := future.exception():
                    print_line(f"{name} was not measured: {error!r}")
                    failed.append(name)
            if over and not pending:
                break
            over = (study.folder / ALL_TRAINED).exists()
            time.sleep(0.2)
    failed += left  # a checkpoint that was never written
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}; the same command tries again")


def measure(options: argparse.Namespace, device: str, name: str) -> None:
    """Sample and measure one checkpoint in this process."""
    torch.set_num_threads(1)
    secondary, start = plan_of(options)["secondary"], time.perf_counter()
    at_once = _SAMPLED_AT_ONCE[device]
    model = f"{name.replace('@', '-at-')}={TRAINED}"
    settings = {
        "checkpoint_folder": str(options.folder / "checkpoints" / name),
        "device": device,
        "batch": min(at_once, options.limit or at_once),
    }
    api.run(
        [model],
        subsets=secondary["subsets"],
        metrics=secondary["metrics"],
        settings=settings,
        limit=options.limit,
        out=options.folder / "runs",
        workers=0,
    )
    torch.cuda.empty_cache()  # does nothing without a GPU
    print_line(f"{name} measured in {time.perf_counter() - start:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--plan", type=Path, default=PLAN, help="a file like plan.toml")
    parser.add_argument("--examples", type=Path, help="a folder of examples that is there or being made")
    parser.add_argument("--trainers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of a trainer")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--limit", type=int, help="prompts of a subset")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
