"""Answers the study's question from its runs: tables for docs/hearing.md, a figure, and all values in one file.

    python -m benchmarks.hearing.report --folder runs/hearing --out build/hearing
    python -m benchmarks.hearing.report --values benchmarks/hearing/values.parquet --out build/hearing
    python -m benchmarks.hearing.report --plan benchmarks/hearing/ablations.toml \
        --values benchmarks/hearing/ablations.parquet --out build/ablations

``--values`` needs no runs: such a file holds each clip's values and each training's distances, and names the plan that
it was made by; another plan is refused. An arm is
compared with another over the seeds that both were trained with; seeds are pairs, as they fix data, noise and order.
"""

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avbench.avfulldit.checkpoint import CARD
from avbench.core import InputError, first_line
from avbench.metrics.evaluate import read_values
from avbench.metrics.table import known_metrics
from avbench.report.lists import as_markdown
from avbench.report.page import svg
from avbench.statistics import paired
from avbench.statistics.trainings import ArmDifference, arm_difference
from avbench.storage.reading import opened, read_json
from avbench.storage.runs.view import RunView
from benchmarks.hearing.arms import Arm
from benchmarks.hearing.plans import PHYSICAL_ERROR, PLAN, of_unlike_clips, plan_digest, read_plan

MEASURES = (PHYSICAL_ERROR, "motion_frechet", "sync_excess")
_PLAN_NAME, _PLAN_DIGEST = "plan", "plan_sha256"
"""In the file of the values: the name of the plan's file, and the digest of what decides its numbers."""
_COLUMNS = ["arm", "seed", "step", "subset", "prompt", "metric", "value"]
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#222}.soft{fill:#777}.strong{font-weight:bold}.grid{stroke:#ddd}</style>"
    '<rect width="100%" height="100%" fill="#fff"/>'
)
"""A figure outside the page brings its own look."""
_END = -1
"""The step at which a training is looked at when it is finished."""
_COLOURS = {"t2v": "#3465a4", "t2av": "#c4611f"}
_OTHER = "#8a8a8a"


def main() -> None:
    """Read, compare, write; an error is one sentence and exit code 2."""
    options = _options()
    with errors_as_sentences():
        write_report(read_plan(options.plan), options.plan.name, options.out, options.folder, options.values)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """End the process with one sentence and exit code 2 where input or files are wrong."""
    try:
        yield
    except (InputError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def write_report(plan: dict[str, Any], name: str, out: Path, folder: Path | None, stored: Path | None = None) -> None:
    """Write the tables and the figures of a plan, and from a study's folder the values and cards as well."""
    if folder is None:
        assert stored is not None
        values = read_stored(stored, plan, name)
    else:
        values = read_runs(folder / "runs", plan)
        values.attrs = {_PLAN_NAME: name, _PLAN_DIGEST: plan_digest(plan)}
        cards = read_cards(folder / "checkpoints", values)
        require_one_study(cards, plan)
    out.mkdir(parents=True, exist_ok=True)
    if folder is not None:
        values.to_parquet(out / "values.parquet", compression="zstd", index=False)
        (out / "cards.jsonl").write_text("".join(f"{json.dumps(card)}\n" for card in cards))
    study, baseline, parts_of_error = Values(values, plan), plan["baseline"], plan[PHYSICAL_ERROR]["parts"]
    with_baseline = [(row["name"], baseline) for row in plan["arm"] if row["name"] != baseline]
    others = [name for name in plan["secondary"]["metrics"] if name not in (*MEASURES, *parts_of_error)]
    parts = {
        "What was trained": trained(values),
        "Primary": primary(study, plan),
        "Physical error by the parts that both clips of a pair have": by_shared_parts(study, plan),
        "Means over the trainings of each arm": levels(study, plan),
        f"Every arm against {baseline}": differences(study, plan, with_baseline, MEASURES),
        f"Parts of the physical error, every arm against {baseline}": differences(
            study, plan, with_baseline, parts_of_error
        ),
        f"Other measures, every arm against {baseline}": differences(study, plan, with_baseline, others),
        "Few clips against many": differences(study, plan, of_unlike_clips(plan), MEASURES),
        "Along the training": along(study, plan),
    }
    text = "\n".join(f"## {title}\n\n{table(frame)}" for title, frame in parts.items() if len(frame))
    (out / "tables.md").write_text(text)
    for file, drawn in (("hearing.svg", figure(study, plan)), ("effects.svg", effects(study, plan))):
        (out / file).write_text(str(drawn).replace(">", f">{_STYLE}", 1))


def read_cards(folder: Path, values: pd.DataFrame) -> list[dict[str, Any]]:
    """The card of every checkpoint that was measured, by its name."""
    names = {
        f"{arm}-{seed}{f'@{step}' if step >= 0 else ''}"
        for arm, seed, step in values[["arm", "seed", "step"]].drop_duplicates().itertuples(index=False)
    }
    return [{"checkpoint": name, **read_json(folder / name / CARD, dict[str, Any])} for name in sorted(names)]


def require_one_study(cards: Sequence[dict[str, Any]], plan: dict[str, Any]) -> None:
    """Raise InputError unless these trainings are the plan's and can be compared.

    All must have the plan's settings, and the same towers and machine; trainings of one seed, on the same number of
    clips and for the same number of steps, must have been shown the same.
    """
    asked = {name: value for name, value in plan["training"].items() if name != "along"}
    first, shown = cards[0], {}
    for card in cards:
        trained_by = {name: card["plan"][name] for name in asked}
        seed = card["plan"]["seed"], card["source"]["first"], card["step"]
        same = {
            "training": (trained_by, asked),
            "video tower": (card["towers"]["video"], first["towers"]["video"]),
            "machine": (card["machine"], first["machine"]),
            "seen_sha256": (card["seen_sha256"], shown.setdefault(seed, card["seen_sha256"])),
        }
        for what, (has, needs) in same.items():
            if has != needs:
                msg = f"{card['checkpoint']} has another {what}: {has}, not {needs}; give the --plan of this training"
                raise InputError(msg)


def read_runs(folder: Path, plan: dict[str, Any]) -> pd.DataFrame:
    """One row per training, step, clip and metric; a distance has no prompt.

    Of the plan's arms and seeds, as far as they were measured: another plan may share the folder.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder; --folder is that of the study, which has the runs in it"
        raise InputError(msg)
    frames, seeds = [], {arm.name: arm.seeds for arm in (Arm(**row) for row in plan["arm"])}
    distances = {name for name, metric in known_metrics().items() if not metric.per_clip}
    for path in sorted(folder.iterdir()):
        name, _, step = path.name.partition("-at-")
        arm, _, seed = name.rpartition("-")
        if not seed.isdecimal() or int(seed) >= seeds.get(arm, 0) or not (path / "scores.json").exists():
            continue
        view = RunView(path)
        frame = read_values(view).rename(columns={"seed": "clip"})
        scores = pd.DataFrame(
            [(one.subset, None, one.metric, one.value) for one in view.scores() if one.metric in distances],
            columns=["subset", "prompt", "metric", "value"],
        )
        both = pd.concat([frame[["subset", "prompt", "metric", "value"]], scores])
        frames.append(both.assign(arm=arm, seed=int(seed), step=int(step) if step else -1))
    if not frames:
        msg = f"{folder} has no measured run of the arms {', '.join(seeds)}; give the --plan that was carried out there"
        raise InputError(msg)
    return pd.concat(frames, ignore_index=True)[_COLUMNS]


def read_stored(path: Path, plan: dict[str, Any], name: str) -> pd.DataFrame:
    """What `read_runs` gave and was stored. Raises InputError unless it was made by this plan, which has a name."""
    with opened(path) as file:
        try:
            values = pd.read_parquet(file)
        except (ValueError, OSError) as error:
            msg = f"{path} is damaged or no Parquet file: {first_line(error)}"
            raise InputError(msg) from None
    if missing := [column for column in _COLUMNS if column not in values]:
        msg = f"{path} has no column {missing[0]!r}; give a values.parquet that this report wrote"
        raise InputError(msg)
    if values.attrs.get(_PLAN_DIGEST) != (asked := plan_digest(plan)):
        made_by = " ".join(str(values.attrs.get(key, "unknown"))[:30] for key in (_PLAN_NAME, _PLAN_DIGEST))
        msg = f"{path} was made by another plan ({made_by}) than --plan gives ({name} {asked[:30]})"
        raise InputError(msg)
    return values


class Values:
    """All values, and the physical error that the plan defines."""

    def __init__(self, values: pd.DataFrame, plan: dict[str, Any]) -> None:
        self._parts = standardised_parts(values, plan)
        self._values = pd.concat([values, physical_error(self._parts)], ignore_index=True)

    @property
    def last(self) -> pd.DataFrame:
        """At the end of each training."""
        return self.at(_END)

    def at(self, step: int) -> pd.DataFrame:
        """In the course of the trainings."""
        return self._values[self._values["step"] == step]

    def seeds(self, arm: str, step: int = _END) -> list[int]:
        """Those that the arm was trained with, as far as it was measured at this step."""
        here = self.at(step)
        return sorted(here.loc[here["arm"] == arm, "seed"].unique())

    def by_prompt(self, arm: str, measure: str, subset: str, seeds: list[int], step: int = _END) -> pd.DataFrame:
        """One row per seed, one column per prompt; one column for a distance."""
        rows = self.at(step).query("arm == @arm and metric == @measure and subset == @subset and seed in @seeds")
        return rows.assign(prompt=rows["prompt"].fillna("")).pivot_table(index="seed", columns="prompt", values="value")

    def compared(self, arms: Sequence[str], measure: str, subset: str, step: int = _END) -> ArmDifference | None:
        """The first arm less the second. Of four arms, that less the same of the last two: the difference of two
        effects. None where an arm was not measured, or fewer than two trainings are shared.
        """
        if self.not_compared(arms, measure, subset, step):
            return None
        a, b, *others = self._aligned(arms, measure, subset, step)
        if others:
            a, b = a - b, others[0] - others[1]
        return arm_difference(a, b, paired_rows=True)

    def of_each_seed(self, pair: Sequence[str], measure: str, subset: str, step: int = _END) -> list[float]:
        """The first arm less the second, of each seed, over the prompts that both have."""
        a, b = self._aligned(pair, measure, subset, step)
        return [float(np.nanmean(row)) for row in a - b]

    def _aligned(self, arms: Sequence[str], measure: str, subset: str, step: int) -> list[np.ndarray]:
        """Each arm's values, ``[seed, prompt]``, of the seeds that all have."""
        seeds = self._shared_seeds(arms, step)
        tables = [self.by_prompt(arm, measure, subset, seeds, step) for arm in arms]
        columns = functools.reduce(pd.Index.union, (one.columns for one in tables))
        return [one.reindex(columns=columns).to_numpy(float) for one in tables]

    def not_compared(self, arms: Sequence[str], measure: str, subset: str, step: int = _END) -> str | None:
        """Why these arms cannot be compared, or None if they can."""
        if len(seeds := self._shared_seeds(arms, step)) < 2:
            trained = ", ".join(f"{arm} {len(self.seeds(arm, step))}" for arm in dict.fromkeys(arms))
            return f"two trainings with the same seeds are needed ({trained}; {len(seeds)} shared)"
        lacking = [arm for arm in arms if len(self.by_prompt(arm, measure, subset, seeds, step)) < len(seeds)]
        return f"{lacking[0]} has no value in every training" if lacking else None

    def compared_by_shared_parts(self, arms: Sequence[str], subset: str) -> ArmDifference | None:
        """The physical error of the first arm less that of the second, by the parts that both clips of a pair have."""
        seeds = self._shared_seeds(arms)
        last = self._parts.query("step == -1 and subset == @subset and seed in @seeds")
        tables = [
            last[last["arm"] == arm].pivot_table(index="seed", columns=["prompt", "metric"], values="value")
            for arm in arms
        ]
        if len(seeds) < 2 or any(len(one) < len(seeds) for one in tables):
            return None
        a, b = tables[0].align(tables[1])
        both = a.notna() & b.notna()
        a, b = (one.where(both).T.groupby(level="prompt").mean().T.to_numpy(float) for one in (a, b))
        return arm_difference(a, b, paired_rows=True)

    def _shared_seeds(self, arms: Sequence[str], step: int = _END) -> list[int]:
        return sorted(set.intersection(*({*self.seeds(arm, step)} for arm in arms)))


def physical_error(parts: pd.DataFrame) -> pd.DataFrame:
    """Rows of the mean of the standardised parts that a clip has."""
    keys = ["arm", "seed", "step", "subset", "prompt"]
    return parts.groupby(keys, as_index=False)["value"].mean().assign(metric=PHYSICAL_ERROR)[_COLUMNS]


def standardised_parts(values: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """Rows of the sum's parts, each divided by its standard deviation over the clips of the baseline."""
    rows = values[values["metric"].isin(plan[PHYSICAL_ERROR]["parts"])].copy()
    rows["value"] = np.where(rows["metric"] == "toy_contact", 1 - rows["value"], rows["value"])
    spread = rows[(rows["arm"] == plan["baseline"]) & (rows["step"] == -1)].groupby(["subset", "metric"])["value"].std()
    rows = rows.join(spread.rename("spread"), on=["subset", "metric"])
    return rows.assign(value=(rows["value"] / rows["spread"]).where(rows["spread"] > 0))[_COLUMNS]


def trained(values: pd.DataFrame) -> pd.DataFrame:
    """Seeds and clips of each arm."""
    last = values[(values["step"] == -1) & values["prompt"].notna()]
    return pd.DataFrame(
        {
            "arm": arm,
            "trainings": rows["seed"].nunique(),
            "clips of each": rows.drop_duplicates(["seed", "subset", "prompt"]).groupby("seed").size().min(),
        }
        for arm, rows in last.groupby("arm", sort=False)
    )


def primary(study: Values, plan: dict[str, Any]) -> pd.DataFrame:
    """The declared family. A question without an answer has a row with the reason."""
    rows = []
    asked = [(question, arms) for question in plan["primary"] for arms in question["compared"]]
    for question, arms in asked:
        measure, subset, margin = (question[name] for name in ("measure", "subset", "margin"))
        comparison = " − ".join(arms) if len(arms) == 2 else "({} − {}) − ({} − {})".format(*arms)
        rows.append({"comparison": comparison, "measure": measure, "subset": subset})
        if (found := study.compared(arms, measure, subset)) is None:
            reason = study.not_compared(arms, measure, subset)
            rows[-1] |= {"margin": margin, "within the margin": f"not measured: {reason}"}
            continue
        alike = paired.equivalence(found.value, found.error, found.dof, margin) < paired.ALPHA
        rows[-1] |= {
            **_numbers(found),
            "p exact (least)": f"{found.p_exact:.3f} ({found.least_p:.3f})",
            "margin": margin,
            "within the margin": "shown" if alike else "not shown",
            "detectable": found.components.detectable(found.trainings[0], found.prompts, family=len(asked)),
        }
    answered = [row for row in rows if "p" in row]
    missing = [1.0] * (len(rows) - len(answered))  # what was not measured yet stays in the declared family
    for row, corrected in zip(answered, paired.holm([*(row["p"] for row in answered), *missing]), strict=False):
        row["p by Holm"] = corrected
    return pd.DataFrame(rows)


def by_shared_parts(study: Values, plan: dict[str, Any]) -> pd.DataFrame:
    """How far the primary answers rest on which parts a clip allows: a part counts only where both clips of a pair have
    it.
    """
    rows = []
    for question in plan["primary"]:
        for arms in question["compared"]:
            if question["measure"] != PHYSICAL_ERROR or len(arms) != 2:
                continue
            if (found := study.compared_by_shared_parts(arms, question["subset"])) is not None:
                rows.append({"comparison": " − ".join(arms), "subset": question["subset"], **_numbers(found)})
    return pd.DataFrame(rows)


def levels(study: Values, plan: dict[str, Any]) -> pd.DataFrame:
    """Each arm's own numbers, and on which share of its clips they rest."""
    rows = []
    for measure, subset in itertools.product(MEASURES, plan["secondary"]["subsets"]):
        asked = study.last.loc[study.last["subset"] == subset, "prompt"].nunique()
        for arm in [row["name"] for row in plan["arm"]]:
            if len(table := study.by_prompt(arm, measure, subset, study.seeds(arm))):
                share = "" if [*table.columns] == [""] else f"{table.notna().to_numpy().sum() / len(table) / asked:.0%}"
                mean = float(table.mean(axis=1).mean())
                row = {"measure": measure, "subset": subset, "arm": arm, "trainings": len(table), "mean": mean}
                rows.append(row | {"clips with a value": share})
    return pd.DataFrame(rows)


def _numbers(found: ArmDifference) -> dict[str, Any]:
    interval = " … ".join(f"{end:+.3g}" for end in found.interval)
    return {"prompts": found.prompts, "difference": found.value, "95 %": interval, "p": found.p}


def differences(
    study: Values, plan: dict[str, Any], pairs: Sequence[tuple[str, str]], measures: Sequence[str]
) -> pd.DataFrame:
    """The first arm of each pair less the second, by each measure in its own unit, on each subset."""
    rows = []
    for measure, subset, pair in itertools.product(measures, plan["secondary"]["subsets"], pairs):
        if (found := study.compared(pair, measure, subset)) is not None:
            of = {"measure": measure, "subset": subset, "comparison": " − ".join(pair), "seeds": found.trainings[0]}
            rows.append(of | _numbers(found))
    return pd.DataFrame(rows)


def along(study: Values, plan: dict[str, Any]) -> pd.DataFrame:
    """The arms that the plan follows: means of the trainings that were looked at on the way."""
    steps = [round(share * plan["training"]["steps"]) for share in plan["training"]["along"]]
    followed = plan["secondary"].get("along") or ()
    looks = [*((step, study.at(step)) for step in steps), (plan["training"]["steps"], study.last)]
    looked_at = [{*frame.loc[frame["arm"] == arm, "seed"]} for _, frame in looks for arm in followed]
    seeds = sorted(set.intersection(*looked_at)) if looked_at else []
    rows = []
    for measure, subset in itertools.product(MEASURES if seeds else (), plan["secondary"]["subsets"][:2]):
        for step, frame in looks:
            of = frame[(frame["metric"] == measure) & (frame["subset"] == subset) & frame["seed"].isin(seeds)]
            means = of.groupby(["arm", "seed"])["value"].mean().groupby("arm").mean()
            arms = {arm: means.get(arm, np.nan) for arm in followed}
            rows.append({"measure": measure, "subset": subset, "trainings": len(seeds), "step": step, **arms})
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame) -> str:
    """Markdown; – where there is nothing."""
    rows = [
        ["–" if pd.isna(cell) else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in frame.itertuples(index=False)
    ]
    return as_markdown([*frame.columns], rows) + "\n"


@dataclass(frozen=True)
class _Row:
    """A row of a figure."""

    label: str
    dots: Sequence[float]
    """One for each training, or each pair of trainings."""
    colour: str = _OTHER
    interval: tuple[float, float] | None = None


def figure(study: Values, plan: dict[str, Any]) -> Any:
    """Every training as a dot, by arm, for the two primary measures."""
    arms = [row["name"] for row in plan["arm"] if study.seeds(row["name"])]
    panels = {}
    for question in plan["primary"]:
        measure, subset = question["measure"], question["subset"]
        means = {arm: study.by_prompt(arm, measure, subset, study.seeds(arm)).mean(axis=1) for arm in arms}
        panels[f"{measure}, {subset}"] = [_Row(arm, [*means[arm]], _COLOURS.get(arm, _OTHER)) for arm in arms]
    return _drawn(panels, 110, "Both primary measures of every training, one row per arm, with each arm's mean")


def effects(study: Values, plan: dict[str, Any]) -> Any:
    """Every pair of trainings as a dot, by what is compared: at the end on each subset, and on the way."""
    pairs = dict.fromkeys(tuple(pair) for one in plan["primary"] for pair in one["compared"] if len(pair) == 2)
    steps = [round(share * plan["training"]["steps"]) for share in plan["training"]["along"]]
    followed = tuple(plan["secondary"].get("along") or ())[::-1]  # the plans name the arm without sound first
    subsets = plan["secondary"]["subsets"]
    asked = [(pair, subset, _END) for pair in pairs for subset in subsets]
    asked += [(followed, subset, step) for subset in subsets[:2] for step in steps if len(followed) == 2]
    panels = {}
    for measure in dict.fromkeys(question["measure"] for question in plan["primary"]):
        rows = panels[measure] = []
        for pair, subset, step in asked:
            if (found := study.compared(pair, measure, subset, step)) is not None:
                label = f"{' − '.join(pair)}, {subset.removeprefix('toy-')}{f', step {step}' if step != _END else ''}"
                dots = study.of_each_seed(pair, measure, subset, step)
                rows.append(_Row(label, dots, _COLOURS["t2av"], found.interval))
    return _drawn(panels, 290, "Effects of every pair of trainings, with means and 95 % intervals")


def _drawn(panels: Mapping[str, Sequence[_Row]], labels: float, alt: str) -> Any:
    """Panels side by side whose rows have the same labels, in a column of this width."""
    width, row_height, top, gap = 610 + labels, 26, 30, 40
    each = (width - labels - 10) / len(panels)
    parts: list[Any] = []
    for number, (title, rows) in enumerate(panels.items()):
        start = labels + 10 + number * each
        parts += _panel(title, rows, (start, start + each - gap), top, row_height)
        if not number:
            parts += [
                svg.text(labels, _middle(place, top, row_height) + 4, row.label, anchor="end")
                for place, row in enumerate(rows)
            ]
    return svg.drawing(parts, width, top + row_height * (max(map(len, panels.values())) + 1) + 10, alt)


def _middle(place: int, top: float, row_height: float) -> float:
    return top + row_height * (place + 0.5)


def _panel(title: str, rows: Sequence[_Row], span: tuple[float, float], top: float, row_height: float) -> Iterator[Any]:
    """The dots of each row, their mean as a bar, their interval as a line, and the ends of the axis."""
    every = [value for row in rows for value in (*row.dots, *(row.interval or ()))]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    scale = (span[1] - span[0]) / ((high - low) or 1.0)
    foot = top + row_height * (len(rows) + 0.6)
    yield svg.text(span[0], 14, title, kind="strong")
    if any(row.interval for row in rows):
        yield svg.line(span[0] - low * scale, top, span[0] - low * scale, foot - 16, stroke="#777")
    for place, row in enumerate(rows):
        y = _middle(place, top, row_height)
        yield svg.line(span[0], y, span[1], y)
        if row.interval:
            ends = [span[0] + (end - low) * scale for end in row.interval]
            yield svg.line(ends[0], y, ends[1], y, kind="interval", stroke=row.colour, stroke_width=1.5)
        for value in row.dots:
            yield svg.circle(span[0] + (value - low) * scale, y, 4, fill=row.colour, fill_opacity=0.6)
        if row.dots:
            at = span[0] + (sum(row.dots) / len(row.dots) - low) * scale
            yield svg.line(at, y - 9, at, y + 9, kind="mean", stroke=row.colour, stroke_width=3)
    for value, anchor in ((low, "start"), (high, "end")):
        yield svg.text(span[0] + (value - low) * scale, foot, f"{value:.3g}", anchor=anchor, kind="soft")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--folder", type=Path, help="the study's folder")
    given.add_argument("--values", type=Path, help="values.parquet instead of runs")
    parser.add_argument("--plan", type=Path, default=PLAN, help="the plan that the study carried out")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
