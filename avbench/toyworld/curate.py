"""Chooses the toy scenes of each subset from a large pool by measured rules, and writes the audit.

``python -m avbench.toyworld.curate subsets`` writes the three subset folders again, byte for byte. Every scene of
the pool is simulated under eight seeds that no run uses; a rule must hold under all of them.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from avbench.core import Prompt
from avbench.toyworld.captions import WORDINGS, audio_caption, video_caption
from avbench.toyworld.scene import FAMILIES, Scene, random_scene
from avbench.toyworld.world import CLIP_SPEC, simulate

POOL_SEED = 2512_02457
POOL_PER_FAMILY = 160
AUDIT_SEEDS = tuple(range(9_000_000, 9_000_008))
PROMPTS = 96

LARGE_MOTION_RATE = 0.25
"""Frame diagonals a second."""
SMALL_MOTION_RATE = 0.08
CONTACT_IMPULSE = 0.5
"""N·s."""


@dataclass(frozen=True)
class Audited:
    """A scene of the pool with its measurements under the audit seeds."""

    id: str
    scene: Scene
    displacement_rates: tuple[float, ...]
    contact_counts: tuple[int, ...]
    impulses: tuple[float, ...]

    def measured(self) -> dict[str, float]:
        """The values that the rules use."""
        return {
            "displacement_rate_least": round(min(self.displacement_rates), 6),
            "displacement_rate_most": round(max(self.displacement_rates), 6),
            "contacts_least": min(self.contact_counts),
            "contacts_most": max(self.contact_counts),
            "strongest_impulse_least": round(min(self.impulses), 6),
        }


@dataclass(frozen=True)
class Rule:
    """The rule of one subset, in words and in code."""

    subset: str
    purpose: str
    words: str
    holds: Callable[[dict[str, float]], bool]


RULES = (
    Rule(
        "toy-large-motion",
        "Does the model keep its quality when things move far and fast?",
        f"the fastest body's path is at least {LARGE_MOTION_RATE} frame diagonals a second under every audit seed",
        lambda measured: measured["displacement_rate_least"] >= LARGE_MOTION_RATE,
    ),
    Rule(
        "toy-object-contact",
        "Do things that should touch really touch, when they should, and does it sound?",
        f"at least one contact, the strongest of at least {CONTACT_IMPULSE} N·s, under every audit seed",
        lambda measured: measured["contacts_least"] >= 1 and measured["strongest_impulse_least"] >= CONTACT_IMPULSE,
    ),
    Rule(
        "toy-control",
        "What does the model score where nothing moves far and nothing touches? The other subsets are compared "
        "with it.",
        f"the fastest body's path is at most {SMALL_MOTION_RATE} frame diagonals a second, and no contact, "
        "under every audit seed",
        lambda measured: measured["displacement_rate_most"] <= SMALL_MOTION_RATE and measured["contacts_most"] == 0,
    ),
)


def pool() -> Iterator[Audited]:
    """Draw and measure the pool: every family equally often, no scene twice."""
    for number, family in enumerate(FAMILIES):
        rng = np.random.default_rng([POOL_SEED, number])
        scenes = dict.fromkeys(random_scene(family, rng) for _ in range(POOL_PER_FAMILY))
        for index, scene in enumerate(scenes):
            truths = [simulate(scene, seed)[1] for seed in AUDIT_SEEDS]
            yield Audited(
                f"{family}-{index:03d}",
                scene,
                tuple(truth.displacement_rate for truth in truths),
                tuple(len(truth.contacts) for truth in truths),
                tuple(truth.strongest_impulse for truth in truths),
            )


def choose(audited: list[Audited], rule: Rule) -> list[Audited]:
    """The first `PROMPTS` scenes that meet the rule, taken from the families in turn."""
    obeying = [[one for one in audited if one.scene.family == f and rule.holds(one.measured())] for f in FAMILIES]
    in_turn = [one for row in zip_longest(*obeying) for one in row if one is not None]
    if len(in_turn) < PROMPTS:
        msg = f"only {len(in_turn)} scenes of the pool meet the rule of {rule.subset}; {PROMPTS} are needed"
        raise ValueError(msg)
    return in_turn[:PROMPTS]


def write(folder: Path, audited: list[Audited], rule: Rule) -> None:
    """Write prompts.jsonl, audit.csv and card.toml of one subset."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = choose(audited, rule)
    prompts = [_prompt(one, rule, index) for index, one in enumerate(chosen)]
    lines = [json.dumps(prompt.to_json(), ensure_ascii=False) + "\n" for prompt in prompts]
    (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    (folder / "audit.csv").write_text(_audit(audited, chosen, rule), encoding="utf-8", newline="\n")
    (folder / "card.toml").write_text(_card(audited, chosen, rule), encoding="utf-8", newline="\n")


def _prompt(one: Audited, rule: Rule, index: int) -> Prompt:
    wording = index % WORDINGS
    tags = {
        "family": one.scene.family,
        "scene": one.scene.to_json(),
        "why": {"rule": rule.words, **one.measured()},
    }
    return Prompt(one.id, video_caption(one.scene, wording), audio_caption(one.scene, wording), tags)


def _audit(audited: list[Audited], chosen: list[Audited], rule: Rule) -> str:
    kept = {one.id for one in chosen}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "family", *audited[0].measured(), "decision"])
    for one in audited:
        measured = one.measured()
        spare = (
            "obeys the rule, but enough scenes were found before it"
            if rule.holds(measured)
            else "does not obey the rule"
        )
        writer.writerow([one.id, one.scene.family, *measured.values(), "chosen" if one.id in kept else spare])
    return table.getvalue()


def _card(audited: list[Audited], chosen: list[Audited], rule: Rule) -> str:
    families = {family: sum(one.scene.family == family for one in chosen) for family in FAMILIES}
    counts = ", ".join(f"{family} = {count}" for family, count in families.items() if count)
    spec = CLIP_SPEC.to_json()
    values = "\n".join(f"{name} = {json.dumps(value)}" for name, value in spec.items())
    return f'''# Written by `python -m avbench.toyworld.curate subsets`; edit the rules there, not here.
name = "{rule.subset}"
version = 1
purpose = "{rule.purpose}"
rule = "{rule.words}"
chosen = "{len(chosen)} of a pool of {len(audited)} scenes, from the families in turn; audit.csv says why of each"
families = {{ {counts} }}
licence = "Apache-2.0"
world = "toyworld"

[clip_spec]
{values}
'''


if __name__ == "__main__":
    measured_pool = list(pool())
    for each in RULES:
        write(Path(sys.argv[1]) / each.subset, measured_pool, each)
