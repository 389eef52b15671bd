"""Measures how good flow, the contact proxy and the lag of sound are. Remakes the tables of docs/known-bad.md.

    python benchmarks/motion_and_sync.py

Everything is measured in the embedded world, whose truth is known: a few minutes on one core.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from avbench.core import Clip, ClipSpec, Key, Row, columns
from avbench.features.audio.onsets import Onsets
from avbench.features.flow import DISFlow
from avbench.features.flow.pairs import working
from avbench.features.sync.av_align import AVAlign
from avbench.generation.providers.toyworld import CHANGES
from avbench.metrics import sync
from avbench.subsets import loading
from avbench.toyworld import CLIP_SPEC, Scene, make_clip
from avbench.toyworld.world import Truth

PAGE = Path(__file__).parent.parent / "docs" / "known-bad.md"
SHIFTS = range(-400, 401, 50)
"""Milliseconds."""
CONTACT_COLUMNS = "contacts | found | recall | events | precision | time error, median |"
RATES = (8, 12, 24, 60)
"""Frames per second."""
SPEEDS = (0.1, 0.3, 0.6, 1, 2, 4, 8, 12, 20)
"""Pixels a frame of 64."""


def clips(subset: str, every: int = 1, spec: ClipSpec = CLIP_SPEC) -> Iterator[tuple[Clip, Truth]]:
    """The world's clips of a subset, under seed 0."""
    for prompt in loading.load(subset).prompts[::every]:
        yield make_clip(Scene.of(prompt), 0, spec)


def shift_tables() -> tuple[str, str]:
    """Every sync measure under shifted sound, and the lag that is read back."""
    look, onsets, align = DISFlow(), Onsets(), AVAlign()
    shown = [(clip, look(clip)) for clip, _ in clips("toy-object-contact")]
    shift, _ = CHANGES["sound-shifted"]
    rng = np.random.default_rng(0)
    names = ("sync_agreement", "sync_excess", "sync_p", "av_align", "av_align_2024", "av_align_javisbench")
    lines = ["| sound late by, ms | " + " | ".join(f"`{name}`" for name in names) + " |", "|--:|" + "--:|" * len(names)]
    lags = ["| shift, ms | clips | lag read, median | error, median | error, 90 % |", "|--:|--:|--:|--:|--:|"]
    means: dict[str, list[float]] = {name: [] for name in names}
    for late in SHIFTS:
        rows = []
        for index, (clip, motion) in enumerate(shown):
            heard = shift(clip, rng, late)
            values = {**motion, **onsets(heard), **{f"a_{name}": value for name, value in align(heard).items()}}
            rows.append(Row(Key("s", f"{index:04d}", 0), "0" * 64, values))
        table = columns(rows)[1]
        published = {name.removeprefix("a_"): column for name, column in table.items() if name.startswith("a_")}
        for name in names:
            found = getattr(sync, name)(published if name.startswith("av") else table)
            means[name].append(float(np.nanmean(found)))
        lines.append(f"| {late} | " + " | ".join(f"{means[name][-1]:.3f}" for name in names) + " |")
        lag = sync.sync_lag(table)
        lag = lag[~np.isnan(lag)]
        error = np.abs(lag - late)
        middle, most = np.percentile(error, (50, 90))
        lags.append(f"| {late} | {len(lag)} of {len(rows)} | {np.median(lag):.0f} | {middle:.0f} | {most:.0f} |")
    best = [SHIFTS[int(np.argmin(means[n]) if n == "sync_p" else np.argmax(means[n]))] for n in names]
    lines.append("| **best at** | " + " | ".join(f"**{late}**" for late in best) + " |")
    return "\n".join([*lines, ""]), "\n".join([*lags, ""])


def range_table() -> str:
    """How often a lag is read back, by clip length, of simulated events and onsets."""
    rng = np.random.default_rng(0)
    lines = ["| clip, s | clips with both | lag read within 60 ms: of 0 | of ±100 | of ±200 | of ±300 | of ±400 |"]
    lines.append("|--:|--:|--:|--:|--:|--:|--:|")
    for seconds in (1, 2, 4, 8):
        cells = []
        for late in (0.0, 0.1, 0.2, 0.3, 0.4):
            rows = [_simulated(rng, seconds, late * rng.choice([-1, 1]), index) for index in range(400)]
            truth = np.array([late for late, _ in rows])
            lag = sync.sync_lag(columns(row for _, row in rows)[1])
            known = ~np.isnan(lag)
            cells.append((known.mean(), np.mean(np.abs(lag - 1000 * truth)[known] < 60)))
        lines.append(f"| {seconds} | {cells[0][0]:.0%} | " + " | ".join(f"{share:.0%}" for _, share in cells) + " |")
    return "\n".join([*lines, ""])


def _simulated(rng: np.random.Generator, seconds: float, late: float, index: int) -> tuple[float, Row]:
    blows = rng.uniform(0, seconds, rng.poisson(2 * seconds))
    strength = rng.lognormal(0, 0.5, len(blows))
    seen, heard = (rng.random(len(blows)) < 0.7 for _ in range(2))
    more = [rng.uniform(0, seconds, rng.poisson(0.6 * seconds)) for _ in range(2)]
    events = np.concatenate([blows[seen] + rng.normal(0, 0.02, seen.sum()), more[0]])
    onsets = np.concatenate([blows[heard] + late, more[1]])
    inside, within = (events > 0.2) & (events < seconds - 0.3), (onsets >= 0) & (onsets < seconds)
    values = {
        "event_seconds": events[inside],
        "event_strength": np.concatenate([strength[seen], rng.lognormal(-0.5, 0.5, len(more[0]))])[inside],
        "onset_seconds": onsets[within],
        "onset_level": np.concatenate([strength[heard] ** 2, rng.lognormal(-1, 1, len(more[1]))])[within],
        "event_from": 0.2,
        "event_until": seconds - 0.3,
        "sound_seconds": float(seconds),
    }
    return late, Row(Key("s", f"{index:04d}", 0), "0" * 64, values)


def contact_table() -> str:
    """Precision and recall of events as contacts, by family."""
    chosen = (("toy-object-contact", 1), ("toy-large-motion", 2), ("toy-control", 2))
    table = held_against_contacts(itertools.chain.from_iterable(clips(*one) for one in chosen))
    families: list[tuple[str, pd.DataFrame]] = [(str(name), part) for name, part in table.groupby("family", sort=False)]
    lines = ["| family | " + CONTACT_COLUMNS, "|---" + "|--:" * 6 + "|"]
    lines += [contact_row(name, part) for name, part in [*families, ("**all**", table)]]
    return "\n".join([*lines, ""])


def rate_table() -> str:
    """The same by frame rate."""
    lines = ["| frames/s | " + CONTACT_COLUMNS, "|--:" + "|--:" * 6 + "|"]
    for fps in RATES:
        spec = replace(CLIP_SPEC, fps=Fraction(fps), frames=2 * fps)
        chosen = (("toy-object-contact", 5), ("toy-large-motion", 10), ("toy-control", 10))
        found = (clips(*one, spec) for one in chosen)
        lines.append(contact_row(str(fps), held_against_contacts(itertools.chain.from_iterable(found))))
    return "\n".join([*lines, ""])


def held_against_contacts(made: Iterator[tuple[Clip, Truth]]) -> pd.DataFrame:
    """One row a clip: its strong contacts, those found by an event, its events, and those of them that are contacts."""
    look, found = DISFlow(), []
    for clip, truth in made:
        values = look(clip)
        events = np.asarray(values["event_seconds"])
        masses = {f"body{index}": mass for index, mass in enumerate(truth.masses_kg)}
        inside = [one for one in truth.contacts if 0 < one.x < 2 and 0 < one.y < 2]
        any_time = np.array([one.seconds for one in inside])
        strong: list[float] = []
        for one in inside:
            lightest = min(masses[name] for name in (one.a, one.b) if name in masses)
            in_time = values["event_from"] <= one.seconds <= values["event_until"]
            if one.impulse / lightest >= 1 and in_time and (not strong or one.seconds - strong[-1] > 0.2):
                strong.append(one.seconds)
        apart = np.abs(np.subtract.outer(strong, events))
        rows, at = linear_sum_assignment(np.minimum(apart, 1))
        hits = apart[rows, at] <= 0.125
        near = [bool(np.abs(any_time - event).min(initial=9) <= 0.125) for event in events]
        found.append((truth.scene.family, len(strong), hits.sum(), len(events), sum(near), list(apart[rows, at][hits])))
    return pd.DataFrame(found, columns=["family", "contacts", "found", "events", "right", "misses"])


def contact_row(name: str, part: pd.DataFrame) -> str:
    """A line of the table."""
    total = part[["contacts", "found", "events", "right"]].sum()
    misses = list(itertools.chain(*part["misses"]))
    recall = f"{total['found'] / total['contacts']:.2f}" if total["contacts"] else "–"
    precision = f"{total['right'] / total['events']:.2f}" if total["events"] else "–"
    time = f"{1000 * np.median(misses):.0f} ms" if misses else "–"
    cells = (total["contacts"], total["found"], recall, total["events"], precision, time)
    return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |"


def flow_table() -> str:
    """Error of a body's median flow, by its speed, of bodies of known places."""
    look, found = DISFlow(), []
    for subset in ("toy-object-contact", "toy-large-motion", "toy-control"):
        for clip, truth in clips(subset, 3):
            frames = [working(frame, look.protocol) for frame in clip.frames]
            side = len(frames[0].rgb)
            metre = side / 2
            for k, (one, two) in enumerate(itertools.pairwise(frames)):
                flow = look.flow(one, two)
                for body, half in enumerate(truth.half_sizes):
                    x, y = truth.states[k, body, :2] * metre
                    step = (truth.states[k + 1, body, :2] - truth.states[k, body, :2]) * metre * (1, -1)
                    radius, row, column = max(1, int(0.6 * min(half) * metre)), int(side - y), int(x)
                    if min(row, column, side - row, side - column) > radius:
                        cut = flow[row - radius : row + radius + 1, column - radius : column + radius + 1].reshape(
                            -1, 2
                        )
                        miss = np.linalg.norm(np.median(cut, axis=0) - step)
                        found.append((np.linalg.norm(step) / metre * 32, miss / metre * 32, 64 * min(half)))
    table = pd.DataFrame(found, columns=["speed", "miss", "width"])
    lines = [
        "| speed, pixels a frame of 64 | pairs | error, median | of the speed, median | within 10 % |",
        "|---" + "|--:" * 4 + "|",
    ]
    bands = [(f"{low:g}–{high:g}", low, high) for low, high in itertools.pairwise(SPEEDS)]
    for label, low, high in [*bands, ("**0.3 and more**", 0.3, np.inf)]:
        part = table[(table["speed"] >= low) & (table["speed"] < high)]
        share = part["miss"] / part["speed"]
        numbers = f"{part['miss'].median():.2f} | {share.median():.1%} | {np.mean(share < 0.1):.0%}"
        lines.append(f"| {label} | {len(part)} | {numbers} |")
    return "\n".join([*lines, ""])


def insert(tables: Sequence[tuple[str, str]]) -> None:
    """Put the tables between their marks in the page."""
    page = PAGE.read_text()
    for name, text in tables:
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            msg = f"{PAGE} has no one place for the table {name!r}"
            raise SystemExit(msg)
        page = pattern.sub(lambda found, text=text: f"{found[1]}{text}{found[2]}", page)
    PAGE.write_text(page)


def main() -> None:
    """Remake the tables."""
    shifts, lags = shift_tables()
    known = [("shift", shifts), ("lag", lags), ("range", range_table())]
    insert([*known, ("contact", contact_table()), ("rate", rate_table()), ("flow", flow_table())])


if __name__ == "__main__":
    main()
