"""Trains AVFullDiT's towers and both arms on one GPU within a time limit, from nothing, without a network.

    python benchmarks/gpu_kit.py --folder /tmp/kit --minutes 25            # everything, or go on where it stopped
    python benchmarks/gpu_kit.py --folder /tmp/kit --from FOLDER --steps 9000  # trains the arms in a folder further
    python benchmarks/gpu_kit.py --folder /tmp/kit --pack FOLDER --models toy-t2v toy-t2av   # files under 16 MB

It makes training clips on all cores while short trials at equal time choose the optimiser; then it trains the audio
tower, the video tower, and the two arms under identical settings. Every stage saves its state, so the same command goes
on after it was stopped. ``--tiny`` runs all of it in a few minutes on a CPU, to see that it works.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tarfile
import time
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from avbench.storage.writing import write_json
from avbench.training import train
from avbench.training.examples import CAPTIONS, CARD, Examples
from avbench.training.machine import Machine
from avbench.training.plan import Plan

PIECE_BYTES = 15_000_000
SHARES = {"trials": 0.07, "audio": 0.06, "video": 0.41, "arms": 0.46}
"""Of the time, by stage."""


def main() -> None:
    """Run or pack."""
    options = _options()
    if options.pack:
        pack(options.folder, options.pack, options.models)
        return
    machine = Machine("cpu", "float32") if options.tiny else Machine.measured()
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(2)  # the other cores make examples
    options.folder.mkdir(parents=True, exist_ok=True)
    examples = options.examples or options.folder / "examples"
    making = multiprocessing.get_context("spawn").Process(
        target=make_data, args=(examples, options.clips, options.workers)
    )
    if options.examples is None:
        making.start()
    while not (examples / CARD).exists() or not (examples / CAPTIONS).exists():
        time.sleep(0.2)
        if options.examples is None and making.exitcode:
            sys.exit("making the examples failed")
    print_line(f"training on {machine.device} in {machine.precision}: about {options.minutes + 4:.0f} minutes in all")
    kit = Kit(options, machine, examples)
    if options.further:
        kit.further()
    else:
        kit.run()
    if options.examples is None:
        making.join()
    (options.folder / "done").write_text("")


def make_data(out: Path, clips: int, workers: int) -> None:
    """Make the training clips, for as long as it takes."""
    start, reported = time.perf_counter(), 0
    for done in train.make_examples("toyworld", clips, 0, out, workers):
        if done >= reported + 5000 or done == clips > reported:
            reported = done
            print_line(f"examples: {done} of {clips} after {time.perf_counter() - start:.0f} s")


class Kit:
    """The stages, in order."""

    def __init__(self, options: argparse.Namespace, machine: Machine, examples: Path) -> None:
        self.options, self.machine, self.examples = options, machine, Examples.open(examples)
        self.folder = options.folder
        self.seconds = 60 * options.minutes
        first = min(len(self.examples), options.first)
        self.plan = Plan(
            1, options.batch, warmup=options.warmup, first_examples=first, more_examples=options.batch // 16, ema=0.999
        )

    def run(self) -> None:
        """Whatever is not done yet."""
        plan = replace(self.plan, **self.chosen())
        self.tower("audio", plan)
        self.tower("video", plan)
        self.arms(replace(plan, learning_rate=plan.learning_rate / 2, decay_share=0.6, first_examples=None, seed=1))

    def chosen(self) -> dict[str, object]:
        """The optimiser and its rate, by trials of equal time."""
        path = self.folder / "trials.json"
        if not path.exists():
            trials = [{"optimiser": "muon", "learning_rate": 1e-3}, {"optimiser": "muon", "learning_rate": 2e-3}]
            trials.append({"optimiser": "adamw", "learning_rate": 1e-3})
            limit = SHARES["trials"] * self.seconds / len(trials)
            self.step_seconds("video", self.plan)  # compiles, so that no trial pays for it
            curves = [self.trial(trial, number, limit) for number, trial in enumerate(trials)]
            write_json(path, {"seconds_each": limit, "trials": curves})
        curves = json.loads(path.read_text())["trials"]
        best = min(curves, key=lambda curve: curve["loss"])
        print_line(f"chosen: {best['trial']}")
        return best["trial"]

    def trial(self, trial: dict[str, object], number: int, limit: float) -> dict[str, object]:
        """One short run at a constant rate; its loss is the mean of its last quarter."""
        plan = replace(self.plan, steps=10**6, decay_share=1e-9, **trial)
        where = self.folder / f"trial-{number}"
        shutil.rmtree(where, ignore_errors=True)
        curve = []
        for at in train.make_tower("video", plan, self.session(where, stop_after=limit)):
            curve.append((at.step, at.video_loss, at.seconds))
        tail = [loss for step, loss, _ in curve if step > 0.75 * curve[-1][0]]
        loss = sum(tail) / len(tail)
        print_line(f"trial {trial}: {curve[-1][0]} steps, loss {loss:.4f}")
        shutil.rmtree(where)
        return {"trial": trial, "loss": loss, "steps": curve[-1][0], "curve": curve[:: max(1, len(curve) // 40)]}

    def session(self, out: Path, stop_after: float | None = None) -> train.Session:
        """Reports are rare where each waits for the device."""
        every = self.options.report_every
        pace = train.Pace(every, 40 * every, stop_after=stop_after)
        return train.Session(self.examples, out, self.machine, pace, 80 * every)

    def step_seconds(self, what: str, plan: Plan) -> float:
        """Seconds of a step of a tower, or of both arms together, measured after the first reports."""
        where = self.folder / "speed"
        seconds = 0.0
        for arm in train.ARMS if what == "arms" else (what,):
            shutil.rmtree(where, ignore_errors=True)
            few = replace(plan, steps=6 * self.options.report_every, link_steps=self.options.report_every)
            towers = self.folder / "toy-video", self.folder / "toy-audio"
            session = self.session(where)
            steps = (
                train.make_arm(arm, *towers, few, session) if what == "arms" else train.make_tower(what, few, session)
            )
            marks = [(at.step, at.seconds) for at in steps]
            (before, start), (after, end) = marks[2], marks[-1]
            seconds += (end - start) / (after - before)
        shutil.rmtree(where)
        print_line(f"{what}: {1000 * seconds:.1f} ms a step, {plan.batch / seconds:.0f} clips/s")
        return seconds

    def sized(self, what: str, plan: Plan) -> Plan:
        """The plan with as many steps as the stage's share of the time allows; kept, so that a resumed run agrees."""
        path = self.folder / f"steps-{what}.json"
        if not path.exists():
            steps = int(SHARES[what] * self.seconds / self.step_seconds(what, plan))
            every = self.options.report_every
            write_json(path, max(steps - steps % every, 4 * every))
        return replace(plan, steps=json.loads(path.read_text()))

    def tower(self, what: str, plan: Plan) -> None:
        """Train a tower."""
        out = self.folder / f"toy-{what}"
        if not (out / "card.json").exists():
            self.follow(what, train.make_tower(what, self.sized(what, plan), self.session(out)))

    def arms(self, plan: Plan) -> None:
        """Train both arms and check that they saw the same."""
        plan = replace(self.sized("arms", plan), link_steps=self.options.warmup)
        towers = self.folder / "toy-video", self.folder / "toy-audio"
        for arm in train.ARMS:
            out = self.folder / f"toy-{arm}"
            if not (out / "card.json").exists():
                self.follow(arm, train.make_arm(arm, *towers, plan, self.session(out)))
        self.print_alike()

    def further(self) -> None:
        """Train finished arms further, both under one plan."""
        plan = replace(
            self.plan,
            steps=self.options.steps,
            learning_rate=1e-3,
            decay_share=0.6,
            seed=2,
            more_examples=2 * self.plan.more_examples,
        )
        for arm in train.ARMS[::-1]:
            out = self.folder / f"toy-{arm}"
            if not (out / "card.json").exists():
                self.follow(arm, train.go_on(self.options.further / f"toy-{arm}", plan, self.session(out)))
        self.print_alike()

    def print_alike(self) -> None:
        """Say whether both arms were trained alike."""
        differing = train.same_settings(*(self.folder / f"toy-{arm}" for arm in train.ARMS))
        print_line(f"the arms were trained alike: {differing or 'yes'}")

    def follow(self, what: str, steps: object) -> None:
        """Print a line now and then."""
        printed = 0.0
        for at in steps:  # type: ignore[attr-defined]
            if time.monotonic() - printed > 15:
                printed = time.monotonic()
                print_line(f"{what}: {asdict(at)}")
        print_line(f"{what}: done")


def pack(folder: Path, out: Path, models: list[str]) -> None:
    """Copy weights, in numbered pieces where they are large (`cat` joins them), and all else that is small, as one."""
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / "small.tar.gz", "w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".json", ".csv", ".log", ".mkv"):
                archive.add(path, path.relative_to(folder))
    for model in models:
        data = (folder / model / "model.safetensors").read_bytes()
        for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
            (out / f"{model}.safetensors.part{number}").write_bytes(data[start : start + PIECE_BYTES])


def print_line(line: str) -> None:
    """A line with the time, at once."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--from", dest="further", type=Path, help="a folder with toy-t2v and toy-t2av to train further")
    parser.add_argument("--steps", type=int, default=9000, help="further steps")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--clips", type=int, default=120_000)
    parser.add_argument("--examples", type=Path, help="a folder of examples that another process makes, or made")
    parser.add_argument("--first", type=int, default=8_000, help="examples that the first step draws from")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--report-every", type=int, default=50)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.clips, options.first, options.batch = 40, 20, 2
        options.warmup, options.report_every, options.workers = 2, 1, 1
        train.TOWERS["video"] |= {"width": 64, "heads": 1, "layers": 2, "levels": [8, 16]}
        train.TOWERS["audio"] |= {"width": 64, "heads": 1, "layers": 2}
        train.JOINT_LAYERS = 1
    return options


if __name__ == "__main__":
    main()
