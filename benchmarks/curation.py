"""Measures the rules of `avbench curate` on a mixed pool of known truth. Remakes the table of docs/curate.md.

``python benchmarks/curation.py WORK`` makes the pool of toy scenes in WORK (with copies, cuts, frozen, mute, portrait,
titled and panned clips), curates it by every rule, and writes the table into docs/curate.md. Scenes and seeds are held
out: the thresholds were chosen on `--tuning`, other scenes. With ``--beside FOLDER`` the clips of that folder are in
the same pool, and WORK/beside.csv says what came of each; the truth is the toys', and so is the table.
"""

import argparse
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from avbench.core import Audio, Clip
from avbench.curation import choice, duplicates, measures, pool, rules
from avbench.storage.media import read_clip, write_clip
from avbench.storage.workers.worker_pool import default_workers, one_thread
from avbench.subsets.datasets import opened
from avbench.toyworld import FAMILIES, make_clip, random_scene

TITLES = ("SALE", "Free HD", "Subscribe", "Episode 4")
SEEDS = {"held-out": 7100, "tuning": 3300}
RULES = ("large-motion", "object-contact", "ambient")
FAST, SLOW = 0.25, 0.08
"""Diagonals a second of the fastest body: what toyworld/curate.py calls large and small motion."""


def walled(clip: Clip, rng: np.random.Generator, pixels: int) -> Clip:
    """The scene before a textured wall, seen by a camera that pans so many pixels a frame."""
    wall = cv2.GaussianBlur(rng.uniform(0, 255, (96, 128, 1)).astype(np.float32), (0, 0), 2.0)
    wall = np.clip((wall - wall.mean()) * 2 + 128, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    frames = []
    for index, frame in enumerate(clip.frames):
        body = np.ptp(frame.astype(np.int16), axis=2) >= 40
        scene = wall.copy()
        scene[16:80, 32:96][body] = frame[body]
        left = 32 + (index - len(clip.frames) // 2) * pixels
        frames.append(scene[16:80, left : left + 64])
    return replace(clip, frames=np.stack(frames))


def titled(clip: Clip, words: str) -> Clip:
    """The clip with words drawn over its foot."""
    frames = []
    for frame in clip.frames:
        picture = Image.fromarray(frame)
        font = ImageFont.load_default(13)
        ImageDraw.Draw(picture).text((3, 46), words, (255, 255, 255), font, stroke_width=1, stroke_fill=(0, 0, 0))
        frames.append(np.asarray(picture))
    return replace(clip, frames=np.stack(frames))


def make_pool(folder: Path, seed: int, per_family: int) -> None:
    """Clips of every family, and of some a spoilt one or a copy; truth.json says what each is."""
    if (folder / "truth.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    truth: dict[str, dict] = {}

    def keep(name: str, clip: Clip, *, lossless: bool = True, **what: object) -> None:
        write_clip(clip, folder / f"{name}{'.mkv' if lossless else '.mp4'}", lossless=lossless)
        truth[name] = what

    for number, family in enumerate(FAMILIES):
        rng = np.random.default_rng([seed, number])
        for index in range(per_family):
            name = f"{family}-{index:02d}"
            clip, known = make_clip(random_scene(family, rng), seed + index)
            audio = clip.audio
            assert audio is not None
            what = {
                "family": family,
                "rate": known.displacement_rate,
                "contacts": len(known.contacts),
                "seen": sum(one.seconds >= 2 / 8 and one.seconds < 13 / 8 for one in known.contacts),
                "quality": "good",
            }
            keep(name, clip, **what)
            if index % 4 == 0:
                large = np.stack([cv2.resize(f, (96, 96), interpolation=cv2.INTER_CUBIC) for f in clip.frames])
                quiet = Audio((audio.waveform * 0.8).astype(np.float32), audio.sample_rate)
                keep(f"{name}-copy", replace(clip, frames=large, audio=quiet), lossless=False, **what, copy_of=name)
            elif index % 4 == 1:
                wall = int(rng.integers(2**31))
                for way, pixels in (("wall", 0), ("panned", int(rng.choice([-1, 1])))):
                    seen = walled(clip, np.random.default_rng(wall), pixels)
                    keep(f"{name}-{way}", seen, **{**what, "quality": way})
            elif index % 4 == 2:
                other, _ = make_clip(random_scene(str(rng.choice(list(FAMILIES))), rng), seed + 900 + index)
                half = len(clip.frames) // 2
                cut = replace(clip, frames=np.concatenate([clip.frames[:half], other.frames[half:][..., ::-1] // 2]))
                keep(f"{name}-cut", cut, **{**what, "quality": "cut"})
                tall = replace(clip, frames=np.ascontiguousarray(clip.frames[:, :, 14:50]))
                keep(f"{name}-portrait", tall, **{**what, "quality": "portrait"})
            else:
                still = replace(clip, frames=np.repeat(clip.frames[:1], len(clip.frames), axis=0))
                keep(f"{name}-frozen", still, **{**what, "quality": "frozen"})
                keep(f"{name}-titled", titled(clip, str(rng.choice(TITLES))), **{**what, "quality": "titled"})
                mute = replace(clip, audio=Audio(np.zeros_like(audio.waveform), audio.sample_rate))
                keep(f"{name}-mute", mute, **{**what, "quality": "mute"})
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def wanted(what: dict, rule: str) -> bool:
    """What a rule ought to keep of the pool, copies aside."""
    if what["quality"] in ("cut", "portrait", "frozen", "titled"):
        return False
    if rule == "large-motion":
        return what["rate"] >= FAST
    if rule == "object-contact":
        return what["contacts"] > 0 and what["quality"] != "mute"
    return what["rate"] <= SLOW and what["contacts"] == 0 and what["quality"] != "panned"


def lines(work: Path, name: str, per_family: int, beside: list[Path]) -> list[str]:
    """The table's rows of one pool."""
    folder = work / (f"{name}-mixed" if beside else name)
    make_pool(folder, SEEDS[name], per_family)
    for number, place in enumerate(beside):
        link(place, folder / f"beside-{number}")
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    clips, written = opened(str(folder)), rules.read()
    rows = folder.with_name(f"{folder.name}-rows")
    for _ in pool.measure(pool.unmeasured(clips, rows), rows, workers=default_workers()):
        pass
    table = choice.load(clips, rows)
    toy = table["id"].isin(list(truth)).to_numpy()
    decisions_of = {rule: choice.decide(table, written, rule) for rule in RULES}
    if beside:
        decisions = {rule: list(map(decided.why, np.flatnonzero(~toy))) for rule, decided in decisions_of.items()}
        others = table[~toy].drop(columns=["sha256", "picture_hash", "sound_hash"]).assign(**decisions)
        others.sort_values("motion_amount", ascending=False).to_csv(work / "beside.csv", index=False)
    table = table[toy].reset_index(drop=True)
    known = [truth[one] for one in table["id"]]
    found = []
    for rule, decided in decisions_of.items():
        kept = decided.holds.all(axis=1)[toy]
        found.append(row(rule, kept, np.array([wanted(one, rule) for one in known])))
    good = np.array([one["quality"] for one in known])
    found.append(row("cuts: found", table["cuts"].to_numpy() > 0, good == "cut"))
    still = table["motion_with_camera"].to_numpy() < 0.005
    found.append(row("frozen: found", still, good == "frozen"))
    found.append(
        row(
            "mute: found",
            ~(table["loudness"].to_numpy() >= -60) & np.array([k["contacts"] > 0 for k in known]),
            (good == "mute") & np.array([k["contacts"] > 0 for k in known]),
        )
    )
    found.append(row("titled: found", table["text_share"].to_numpy() > 0.005, good == "titled"))
    found.append(row("portrait: found", table["aspect"].to_numpy() < 1, good == "portrait"))
    found += copies(table, known)
    found += before_one_wall(SEEDS[name], work)
    amounts = table.set_index("id")[["motion_amount", "motion_with_camera"]]
    pans = [one for one in amounts.index if one.endswith("-panned")]
    still_twins = amounts.loc[[one.removesuffix("-panned") + "-wall" for one in pans], "motion_amount"].to_numpy()
    for column, words in (("motion_with_camera", "left in"), ("motion_amount", "removed")):
        error = np.abs(amounts.loc[pans, column].to_numpy() - still_twins)
        found.append(
            f"| panned against its still twin, camera {words} | {len(pans)} clips | off by {np.median(error):.3f} | |"
        )
    return found


def link(place: Path, into: Path) -> None:
    """Lay the clips of a folder into the pool's."""
    for entry in opened(str(place.resolve())).entries():
        if entry.path and entry.path.is_file():
            target = into / entry.path.relative_to(place.resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(entry.path)


def copies(table: pd.DataFrame, known: list[dict]) -> list[str]:
    """How many of the copies are found by picture, and by sound, among all clips."""
    number = {one: index for index, one in enumerate(table["id"])}
    made = [
        tuple(sorted((number[one], number[what["copy_of"]])))
        for one, what in zip(table["id"], known, strict=True)
        if "copy_of" in what
    ]
    # spoilt twins share the picture or the sound of their original, so they are no wrong finds
    stems = [re.sub(r"-(copy|wall|panned|cut|portrait|frozen|titled|mute)$", "", one) for one in table["id"]]
    found = []
    for what, limits in (("picture", duplicates.PICTURE), ("sound", duplicates.SOUND)):
        having = set(np.flatnonzero(table[[*limits]].notna().all(axis=1)))
        right = {pair for pair in made if set(pair) <= having}
        hit = {(int(one), int(two)) for one, two in duplicates.near(table, limits)}
        wrong = sum(stems[one] != stems[two] for one, two in hit)
        found.append(
            f"| copies by {what} | {len(hit & right)} of {len(right)} found; {wrong} pairs of unlike scenes | | |"
        )
    return found


def before_one_wall(seed: int, work: Path, count: int = 27) -> list[str]:
    """How many scenes before one unmoving wall are taken for copies, by whole frames alone and with what moves."""
    rng = np.random.default_rng([seed, 99])
    wall = cv2.GaussianBlur(rng.uniform(0, 255, (128, 128, 1)).astype(np.float32), (0, 0), 6.0)
    wall = np.clip((wall - wall.mean()) / wall.std() * 50 + 128, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    rows = []
    for number in range(count):
        clip, _ = make_clip(random_scene([*FAMILIES][number % len(FAMILIES)], rng), seed + number)
        seen = np.stack([wall] * len(clip.frames))
        body = np.ptp(clip.frames.astype(np.int16), axis=3) >= 40
        seen[:, 32:96, 32:96][body] = clip.frames[body]
        large = np.stack([cv2.resize(frame, (192, 192), interpolation=cv2.INTER_CUBIC) for frame in seen])
        write_clip(replace(clip, frames=large), work / "copy.mp4", lossless=False)
        for frames in (seen, read_clip(work / "copy.mp4").frames):
            looked_at = measures.spread(frames)
            rows.append([measures.picture_hash(looked_at), measures.moving_hash(looked_at)])
    table = pd.DataFrame(rows, columns=[*duplicates.PICTURE])
    found = []
    for words, names in (("whole frames alone", ["picture_hash"]), ("picture", [*duplicates.PICTURE])):
        pairs = duplicates.near(table, {name: duplicates.PICTURE[name] for name in names}) // 2
        unlike = len({(one, two) for one, two in pairs.tolist() if one != two})
        same = len({one for one, two in pairs.tolist() if one == two})
        every = count * (count - 1) // 2
        found.append(f"| before one wall, by {words} | {same} of {count} found; {unlike} of {every} unlike pairs | | |")
    return found


def row(name: str, kept: np.ndarray, right: np.ndarray) -> str:
    """A line: how many are kept, precision, recall."""
    both = int((kept & right).sum())
    precision, recall = both / max(kept.sum(), 1), both / max(right.sum(), 1)
    return f"| {name} | {kept.sum()} of {len(kept)}, {right.sum()} right | {precision:.2f} | {recall:.2f} |"


def main() -> None:
    """Make the table and put it into the doc."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--tuning", action="store_true", help="the scenes that thresholds were chosen on")
    parser.add_argument("--per-family", type=int, default=6)
    parser.add_argument("--beside", type=Path, action="append", default=[], help="clips in the same pool; repeatable")
    asked = parser.parse_args()
    one_thread()
    name = "tuning" if asked.tuning else "held-out"
    table = ["| rule | kept, or found | precision | recall |", "|---|---|--:|--:|"]
    table += lines(asked.work, name, asked.per_family, asked.beside)
    sys.stdout.write("\n".join(table) + "\n")
    if name == "held-out" and not asked.beside:
        doc = Path(__file__).parents[1] / "docs" / "curate.md"
        block = "<!-- curation -->\n" + "\n".join(table) + "\n<!-- /curation -->"
        pattern = re.compile(r"<!-- curation -->.*<!-- /curation -->", re.DOTALL)
        doc.write_text(pattern.sub(lambda _: block, doc.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
