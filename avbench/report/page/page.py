"""Renders the page: one HTML file that opens offline, with tables, figures, synchronised clips and blind votes.

The first screen has the answer: the verdict, a forest plot, and one pair of clips. Prompts and names may come from
anybody. So data is embedded as JSON, and the scripts set it as text, never as markup; as a second barrier, a content
security policy allows only this script, by its hash, and no network. Figures are SVG in the page itself.
"""

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from avbench.comparison import votes as ballots
from avbench.comparison.differences import by_pair
from avbench.comparison.score_table import real_values, targets
from avbench.comparison.verdict import effect, verdict
from avbench.core import Direction, Key, Run, Sample, Subset, clip_name
from avbench.core.version import __version__
from avbench.features.current import current_rows
from avbench.features.protocols import forms_of
from avbench.generation.settings import typed
from avbench.metrics.evaluate import values_of
from avbench.metrics.table import known_metrics
from avbench.report import comparison_tables, printed, vbench
from avbench.report.ballots import strength_cells
from avbench.report.page import clips, explain, plots, svg
from avbench.report.page.explain import NOTHING, Explained
from avbench.report.page.forest import forest
from avbench.report.page.pictures import PICTURES
from avbench.report.tables import LEGEND, POOLED, RANKS_LEGEND, subset_tables
from avbench.storage.reading import file_sha256, read_json
from avbench.storage.runs.folder import VALUES_FILE, RunFolder
from avbench.storage.sharing import shared_command, without_folders
from avbench.subsets import loading

MEDIA = ("inside", "beside")
"""Where the clips are stored: in the page, or in `media/` beside it."""
_HERE = Path(__file__).parent
_SCRIPTS = ("data", "plots", "navigation", "origins", "player", "watch", "first", "strips", "gallery", "votes", "start")
"""Files of the folder script/, in the order in which they run, as one script."""
STYLE = _HERE / "page.css"
"""The looks of all pages."""
_WORDS = {
    "columns": comparison_tables.DIFFERENCE_COLUMNS,
    "minor": ("p", "p Holm", "detectable", "needed", "clips"),  # columns that are hidden until a switch shows them
    "legend": LEGEND,
    "ranks_legend": RANKS_LEGEND,
    "differences_legend": comparison_tables.DIFFERENCES_LEGEND,
    "totals_legend": vbench.LEGEND,
}
"""Of the tables, the same on every page."""


def render(
    folders: Sequence[RunFolder],
    frame: pd.DataFrame,
    over: pd.DataFrame,
    place: Path,
    differences: pd.DataFrame,
    media: str = "inside",
    explained: Explained = NOTHING,
    votes: pd.DataFrame | None = None,
    limits: Sequence[str] = (),
) -> str:
    """The page's HTML.

    Args:
        folders: the runs, under different names.
        frame: their `leaderboard.leaderboard`.
        over: their `score_table.over_motion`.
        place: the folder of encoded clips that `clips.prepare` wrote; with ``beside`` it must be `media/` beside the
            page.
        differences: their `differences.differences`.
        media: one of MEDIA.
        explained: what explains metrics; `clips.prepare` must have made its pictures.
        votes: blind votes of `votes.read`, where there are some.
        limits: sentences that stand below the answer, those of `clip_remarks.remarks`.
    """
    script = "\n".join((_HERE / "script" / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    runs = [folder.name for folder in folders]
    every = values_of(folders)  # also of metrics that the tables leave out, such as the amount of motion
    values, over = (one.loc[one["metric"].isin(frame["metric"])] for one in (every, over))
    subsets = [_subset(index, subset, folders) for index, subset in enumerate(_subsets(folders))]
    shown, cards = _clips(folders, place, explained)
    pairs = by_pair(differences)
    colours = {name: plots.colour(index) for index, name in enumerate(runs)}
    data = {
        "version": __version__,
        "runs": [{"name": name, "colour": look} for name, look in colours.items()],
        "metrics": _metrics(frame),
        "subsets": subsets,
        "values": _values(values, runs, subsets),
        "targets": _targets(values, frame, folders, subsets),
        "clips": shown,
        "cards": cards,
        "pictures": [
            {"name": name, "label": PICTURES[name].label, "words": PICTURES[name].words} for name in explained.pictures
        ],
        "curves": [*explained.curves],
        "inside": media == "inside",
        "scores": _records(frame),
        "differences": _differences(differences),
        "pairs": [{"run": run, "against": against} for run, against in pairs],
        "protocols": {digest: one for folder in folders for digest, one in folder.evaluation().protocols.items()},
        "origins": [_origin(folder) for folder in folders],
    }
    figures = {
        one["name"]: {
            "paired": [*plots.paired(values, runs, one["name"], differences)],
            "distances": [*plots.distances(frame, runs, one["name"])],
            "motion": [*plots.over_motion(every, over, runs, one["name"])],
        }
        for one in subsets
    }
    return template("page.html").render(
        **_WORDS,
        **_forests(frame, [*pairs.values()], [one["name"] for one in subsets], colours),
        **_files(place, cards if media == "inside" else {}),
        data=data,
        answer=verdict(frame, differences),
        limits=limits,
        title=" · ".join(runs),
        tables={table.subset: table for table in subset_tables(frame, ranks=True)},
        places={(row["subset"], row["metric"], row["model"]): index for index, row in enumerate(data["scores"])},
        compared=_compared(differences),
        pooled={} if _has_distances(frame) else {kind: POOLED[kind] for kind in POOLED if kind in {*frame["subset"]}},
        figures=figures,
        truth=any(clip and clip["contacts"] is not None for of_runs in shown.values() for clip in of_runs),
        coverage=_coverage(folders, frame),
        totals=[*vbench.totals(frame)],
        papers=printed.sections(folders),
        voted=None if votes is None else _voted(votes),
        pretty=lambda value: json.dumps(value, indent=1, ensure_ascii=False),
        style=Markup(STYLE.read_text(encoding="utf-8")),
        script=Markup(script),
        policy=_policy(script),
    )


def _forests(
    frame: pd.DataFrame, pairs: Sequence[pd.DataFrame], subsets: Sequence[str], colours: Mapping[str, str]
) -> dict[str, Any]:
    """The forest plots of each pair of runs: of all subsets, as `overview`, and of each one."""

    def drawn(rows: pd.DataFrame, subset: str) -> Markup | str:
        there = rows.loc[rows["subset"] == subset]
        return forest(there, frame, colours) if len(there) else ""

    return {
        "overview": [forest(rows, frame, colours) for rows in pairs],
        "forest": {subset: [drawn(rows, subset) for rows in pairs] for subset in subsets},
    }


def _files(place: Path, cards: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The clips with these cards, and their pictures, in base64."""
    pictures = [(name, sha) for sha, known in cards.items() for name, why in known["pictures"].items() if why is None]
    return {
        "media": {sha: _base64(place / f"{sha}.mp4") for sha in cards},
        "pictures": {f"{name}-{sha}": _base64(place / f"{sha}.{name}.mp4") for name, sha in pictures},
    }


def _has_distances(frame: pd.DataFrame) -> bool:
    """Whether there are distances. Means over subsets cannot include them, and would mislead without them."""
    per_clip = {metric.name for metric in known_metrics().values() if metric.per_clip}
    return bool((~frame["metric"].isin([*per_clip]) & frame["value"].notna()).any())


def _differences(differences: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the paired comparisons, with their effect (finite, as JSON needs it) and whether it is shown."""
    rows = [*differences.itertuples()]
    effects = [None if pd.isna(one := effect(row)) else min(max(one, -1e6), 1e6) for row in rows]
    return _records(differences.assign(effect=pd.Series(effects, differences.index, dtype=object)))


def _compared(differences: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the tables of differences; `index` is the row's place among all, `better` whether a run is shown to be
    better.
    """
    found = []
    for index, (_, row) in enumerate(differences.iterrows()):
        named = {name: str(row[name]) for name in ("subset", "metric", "run", "against")}
        texts, remark = comparison_tables.difference_texts(row), comparison_tables.difference_remark(row)
        found.append(
            {**named, "index": index, "cells": texts, "better": comparison_tables.is_better(row), "remark": remark}
        )
    return found


def template(name: str) -> Template:
    """Load a template of this folder; every inserted value is escaped."""
    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    environment = Environment(loader=FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True, **options)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["breakable"] = lambda name: Markup(str(escape(name)).replace("_", "_<wbr>"))
    environment.filters["apart"] = lambda words: Markup(svg.TO_LEFT.sub(r"<bdi>\g<0></bdi>", str(escape(words))))
    return environment.get_template(name)


def _policy(script: str) -> str:
    """Return the content security policy: no network, only this script, media from the page or beside it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "media-src blob: 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert rows to plain values, with None for NaN, which JSON lacks."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _metrics(frame: pd.DataFrame) -> dict[str, Any]:
    known = known_metrics()
    shown = [known[name] for name in frame["metric"].unique()]
    return {one.name: {"direction": one.direction, "unit": one.unit, "question": one.question} for one in shown}


def _subsets(folders: Sequence[RunFolder]) -> list[Subset]:
    """Return the subsets of all runs, each once; `scores_frame` has refused different subsets of one name."""
    return list({subset.name: subset for folder in folders for subset in folder.subsets()}.values())


def _subset(index: int, subset: Subset, folders: Sequence[RunFolder]) -> dict[str, Any]:
    """Return the items of a subset, each a prompt with a seed; the seeds of a prompt follow one another."""
    seeds = list(dict.fromkeys(seed for folder in folders for seed in folder.run().seeds))
    return {
        "name": subset.name,
        "anchor": f"subset-{index}",
        "digest": subset.digest,
        "why": subset.card.get("purpose", ""),
        "prompts": [
            {"id": one.id, "video": one.video_caption, "audio": one.audio_caption, "tags": of_one}
            for one, of_one in zip(subset.prompts, _tags(subset), strict=True)
        ],
        "seeds": seeds,
    }


_MOST_TAGS = 40
"""A tag of more values than that is no filter; nor is one that every prompt has its own value of."""


def _tags(subset: Subset) -> list[dict[str, list[str]]]:
    """Return for each prompt the tags by which the gallery can be filtered: name → values."""
    plain = [
        {name: value if isinstance(value, list | tuple) else [value] for name, value in one.tags.items()}
        for one in subset.prompts
    ]
    values: dict[str, set[str]] = {}
    for name, found in (pair for tags in plain for pair in tags.items()):
        if not any(isinstance(one, Mapping) for one in found):
            values.setdefault(name, set()).update(map(str, found))
    useful = {name for name, found in values.items() if 1 < len(found) < min(len(plain), _MOST_TAGS + 1)}
    return [{name: [*map(str, found)] for name, found in tags.items() if name in useful} for tags in plain]


def _items(subset: dict[str, Any]) -> list[Key]:
    return [Key(subset["name"], prompt["id"], seed) for prompt in subset["prompts"] for seed in subset["seeds"]]


def _values(
    values: pd.DataFrame, runs: Sequence[str], subsets: Sequence[dict[str, Any]]
) -> dict[str, dict[str, list[list[Any]]]]:
    """Subset → metric → run → one number per item, None if there is none; `values` as `plots` takes them."""
    items = {one["name"]: pd.MultiIndex.from_tuples([key[1:] for key in _items(one)]) for one in subsets}
    found: dict[str, dict[str, list[list[Any]]]] = {name: {} for name in items}
    groups: Any = values.groupby(["subset", "metric", "model"])
    for (name, metric, model), part in groups:
        if name in items:
            of_runs = found[name].setdefault(str(metric), [[None] * len(items[name]) for _ in runs])
            listed = part.set_index(["prompt", "seed"])["value"].reindex(items[name])
            of_runs[runs.index(str(model))] = [None if pd.isna(value) else float(f"{value:.5g}") for value in listed]
    return found


def _targets(
    values: pd.DataFrame, frame: pd.DataFrame, folders: Sequence[RunFolder], subsets: Sequence[dict[str, Any]]
) -> dict[str, dict[str, list[float | None]]]:
    """Subset → metric → the value that the clips of each item should have, where the runs have one reference."""
    items = {one["name"]: [prompt for _, prompt, _ in _items(one)] for one in subsets}
    found: dict[str, dict[str, list[float | None]]] = {name: {} for name in items}
    real = [real_values(folder) for folder in folders]
    groups: Any = frame.loc[frame["reference"].notna() & frame["subset"].isin(items)].groupby(["subset", "metric"])
    for where, rows in groups:
        if rows["direction"].iloc[0] == Direction.BAND and rows["reference"].nunique() == 1:
            there: Any = values.loc[(values["subset"] == where[0]) & (values["metric"] == where[1]), "prompt"].unique()
            aims = targets(rows["reference"].iloc[0], [*there], *(one[where] for one in real))
            of_items = pd.Series(aims, there).reindex(items[where[0]])
            found[where[0]][where[1]] = [None if pd.isna(value) else float(f"{value:.5g}") for value in of_items]
    return found


def _clips(folders: Sequence[RunFolder], place: Path, explained: Explained) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``subset/prompt/seed`` → one clip per run, and the record of each encoded file by sha256.

    A clip is None where the run was not asked for it, and has a `form` where it was measured in another one.
    """
    shown: dict[str, list[Any]] = {}
    cards: dict[str, Any] = {}
    for index, folder in enumerate(folders):
        heard = _times(folder, "onsets", "onset_seconds")
        seen = _times(folder, "flow-dis", "event_seconds")
        curves, near = explain.curves(folder, explained), explain.neighbours(folder, explained, place)
        samples, forms = folder.samples(), forms_of(folder)
        for key in sorted({*samples, *folder.planned_keys()}):
            sample = samples.get(key)
            clip: dict[str, Any] = {
                "onsets": heard.get(key),
                "changes": seen.get(key),
                "contacts": _contacts(folder, key),
                **({"curves": curves[key]} if key in curves else {}),
            }
            if beside := near.get(key):
                clip["near"] = {name: one if isinstance(one, str) else asdict(one) for name, one in beside.items()}
                for one in beside.values():
                    if not isinstance(one, str) and one.sha256 is not None:
                        cards.setdefault(one.sha256, _card(clips.card(place, one.sha256), ()))
            missing = _failure(sample)
            if sample is not None and sample.sha256 is not None:
                known = clips.card(place, sample.sha256)
                missing = known.get("missing")
                if missing is None:
                    cards[sample.sha256] = _card(known, explained.pictures)
                if sample.spec_mismatch:
                    spec = forms[key.subset].spec
                    clip["form"] = {**spec.to_json(), "fps": float(spec.fps), "seconds": spec.seconds}
            clip |= {"sha256": sample and sample.sha256, "missing": without_folders(missing)}
            clip |= {"refused": True} if sample is not None and sample.refused else {}
            shown.setdefault("/".join(map(str, key)), [None] * len(folders))[index] = clip
    return shown, cards


def _failure(sample: Sample | None) -> str | None:
    """Return why there is no clip of what a run was asked for; None where there is one."""
    return "it was not sampled" if sample is None else sample.failure


def _card(known: Mapping[str, Any], pictures: Sequence[str]) -> dict[str, Any]:
    """Return what the page needs of an encoded file; of each picture why it is missing, or None."""
    names = ("width", "height", "frames", "fps", "seconds", "sound_seconds", "peaks", "loudness")
    why = {name: known["pictures"][name]["missing"] for name in pictures}
    return {**{name: known[name] for name in names}, "pictures": why}


def _times(folder: RunFolder, feature: str, name: str) -> dict[Key, list[float]]:
    """Return the times in seconds that a feature found in each clip."""
    rows = current_rows(folder, feature)
    return {
        key: [round(float(second), 3) for second in row.values[name]]  # pyright: ignore
        for key, row in rows.items()
        if row.values is not None
    }


@dataclass(frozen=True)
class _Contact:
    seconds: float


@dataclass(frozen=True)
class _Truth:
    """The part of a clip's .truth.json that the page shows."""

    contacts: Sequence[_Contact] = ()


def _contacts(folder: RunFolder, key: Key) -> list[float] | None:
    """Times of the contacts in seconds, if the clip's maker knew them."""
    path = folder.truth_path(key)
    if not path.exists():
        return None
    known = read_json(path, _Truth, known_only=False)
    return sorted({round(contact.seconds, 2) for contact in known.contacts})


def _coverage(folders: Sequence[RunFolder], frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per subset and run: clips requested and made, what could not be measured, and the reasons of failures."""
    found = []
    for subset in _subsets(folders):
        for folder in (one for one in folders if subset.name in one.run().subsets):
            samples, seeds = folder.samples(), folder.run().seeds
            asked = [key for key in folder.planned_keys() if key.subset == subset.name]
            here = frame.loc[(frame["subset"] == subset.name) & (frame["model"] == folder.name)]
            rows = [row for row in _records(here) if row["unmeasured"]]
            gaps = [(row["metric"], row["unmeasured"], row["missing"] or row["why_unmeasured"]) for row in rows]
            failed = [(key, _failure(samples.get(key))) for key in asked]
            found.append(
                {
                    "subset": subset.name,
                    "run": folder.name,
                    "asked": len(asked),
                    "failed": without_folders([(clip_name(key, seeds), why) for key, why in failed if why]),
                    "gaps": without_folders(gaps),
                    "measured": len(here) - len(gaps),
                    "metrics": len(here),
                }
            )
    return found


def _voted(votes: pd.DataFrame) -> dict[str, Any]:
    rows = [(one, *strength_cells(one)) for one in ballots.strengths(votes)]
    return {"strengths": rows, "pairs": _records(ballots.pairs(votes)), "remarks": ballots.remarks(votes)}


def _origin(folder: RunFolder) -> dict[str, Any]:
    """Return the origin of a run's numbers: the commands, run.json, and the hashes of the files that hold them."""
    run = folder.run()
    files = ("run.json", *(("scores.json", VALUES_FILE) if folder.scores_are_stored else ()))
    hashes = {name: file_sha256(folder.path / name) for name in files}
    named = {"name": folder.name, "path": shlex.quote(str(folder.path))}
    made = {**named, "run": run.to_json(), "commands": _commands(folder, run)}
    return {**without_folders(made), "hashes": hashes}  # a page is for other people


def _commands(folder: RunFolder, run: Run) -> dict[str, str]:
    """The commands that reproduce the run."""
    asked = [word for one in folder.subsets() for word in ("--subset", _named(folder, one))]
    seeds = ["--seeds", str(max(run.seeds) + 1)]
    given = [word for name, value in run.asked.items() for word in ("-M", f"{name}={_typed(value)}")]
    out = ["--out", str(folder.path.parent)]
    if run.shard is not None:  # whose folder is OUT/shards/i-of-n/NAME
        out = ["--out", str(folder.path.absolute().parents[2]), "--shard", run.shard]
    beside = {name: [f"--{name}", path] for name, path in folder.evaluation().given.items()}
    scored = [word for words in beside.values() for word in words]
    return {
        "sample": shared_command(["avbench", "sample", run.model, *given, *asked, *seeds, *out]),
        "measure": shared_command(["avbench", "measure", str(folder.path), *beside.get("against", []), "--metric"]),
        "evaluate": shared_command(["avbench", "evaluate", str(folder.path), *scored, "--metric"]),
    }


def _named(folder: RunFolder, subset: Subset) -> str:
    """Return a subset as a value of --subset: its name if it is shipped unchanged, else the run's own file."""
    if subset.name in loading.names() and loading.load(subset.name).digest == subset.digest:
        return subset.name
    return str(folder.subset_path(subset.name))


def _typed(value: Any) -> str:
    """Write a setting as -M reads it: text without quotes, unless it would be read as something else."""
    return value if isinstance(value, str) and typed(value) == value else json.dumps(value)
