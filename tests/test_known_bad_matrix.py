"""Every metric sees what it must and nothing else: the recorded table of all, and, live, of those without weights."""

import concurrent.futures
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avbench.core import Key, NotMeasurable, Row, columns, resolve
from avbench.features.table import FEATURES
from avbench.generation.providers.toyworld import ToyWorld
from avbench.generation.table import Request
from avbench.metrics.table import METRICS
from avbench.storage.weights import PUBLISHED
from avbench.subsets import loading

ROOT = Path(__file__).parent.parent
BENCH = runpy.run_path(str(ROOT / "benchmarks" / "known_bad.py"))
WANTED = BENCH["wanted"]()
PICTURE, SOUND = ("flow-dis", "toy-physics", "vbench-flicker"), ("onsets", "levels")
LIVE = (*PICTURE, *SOUND)
HEARD_ONLY = ("sound-shifted", "sound-swapped", "mute", "hissing", "clipped")
"""Their picture is the world's own."""
CLIPS = 64
pytestmark = pytest.mark.timeout(1500)  # all known-bad models are made and measured once, for the whole file
ELSEWHERE = {
    "fvd_infinity": "needs 2000 clips",
    "lpips_reference": "needs a run of reference clips",
    "lpips_vgg_reference": "needs a run of reference clips",
    "lpips_seeds": "needs several seeds",
    "lpips_vgg_seeds": "needs several seeds",
    **{
        name: "needs a reference of its own protocol" for name in ("fvd_stylegan_v", "fvd_cd_fvd", "fvd_fvd_comparison")
    },
    **{name: "needs a reference of its own protocol" for name in ("fvd_common_metrics", "fvd_asva", "fvd_fastvideo")},
    "fvd_javisbench": "needs a reference of its own protocol",
    **dict.fromkeys(("physics_judge_served", "physics_judge_spread_served"), "needs a server"),
}


def needs_user_provided_weights(metric):
    """Whether a metric's network is not to be had here."""
    for feature in filter(None, (metric.feature, metric.beside)):
        if feature.startswith("lpips-squeeze"):
            return True
        kind = resolve(FEATURES[feature])
        protocol = vars(kind).get("protocol")
        if type(protocol).__name__ == "UserProvidedProtocol" or getattr(protocol, "weights", None) in PUBLISHED:
            return True
    return False


def test_every_metric_that_can_be_is_in_the_list():
    able = {metric.name for metric in METRICS if not needs_user_provided_weights(metric)}
    assert able - {*WANTED, *ELSEWHERE} == set(), (
        "say in benchmarks/known_bad.toml what these must detect and ignore, or in ELSEWHERE why they cannot be tested"
    )
    assert {*WANTED, *ELSEWHERE} - able == set(), "there is no such metric, or its weights are not to be had"


def test_what_the_recorded_table_lacks_is_said_with_the_command():
    models = BENCH["VARIANTS"][1:]
    found = pd.DataFrame([(metric, model) for metric in "ab" for model in models], columns=["metric", "model"])
    said, command = BENCH["unmeasured"], "run `python benchmarks/known_bad.py"
    assert said(found, {"a": {}, "b": {}}) is None
    assert said(found, {"a": {}, "new": {}}).endswith(f"{command} --metric new`")
    other = said(found[found["model"] != "mute"], {"a": {}, "b": {}})
    assert other == f"docs/known-bad.csv lacks rows of mute: {command}`"


def test_the_recorded_table_holds():
    """docs/known-bad.csv, 96 clips a model, made by benchmarks/known_bad.py."""
    found = pd.read_csv(ROOT / "docs" / "known-bad.csv")
    assert BENCH["unmeasured"](found, WANTED) is None
    assert BENCH["broken"](found, WANTED) == []
    assert (ROOT / "docs" / "known-bad.svg").read_text() == BENCH["picture"](found, WANTED)
    bounds = {metric.name: metric.bounds for metric in METRICS}
    for row in found.dropna(subset=["value"]).itertuples():
        least, most = bounds[row.metric]
        assert (least is None or row.value >= least) and (most is None or row.value <= most), row


def measured(variant):
    """Rows of one model: feature → ``{prompt: Row}``."""
    features = SOUND if variant in HEARD_ONLY else LIVE
    made, found = ToyWorld(variant), {feature: {} for feature in features}
    looks = {feature: resolve(FEATURES[feature])() for feature in features}
    subset = loading.load("toy-object-contact").limited(CLIPS)
    for prompt in subset.prompts:
        key = Key(subset.name, prompt.id, 0)
        clip = made.generate([Request(key, prompt, subset.clip_spec)])[0].clip
        for feature, look in looks.items():
            try:
                values, missing = (look(clip, prompt) if feature == "toy-physics" else look(clip)), None
            except NotMeasurable as reason:
                values, missing = None, str(reason)
            found[feature][prompt.id] = Row(key, "0" * 64, values, missing)
    return found


@pytest.fixture(scope="module")
def every():
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        found = dict(zip(BENCH["VARIANTS"], pool.map(measured, BENCH["VARIANTS"]), strict=True))
    return {variant: found[""] | rows for variant, rows in found.items()}


def per_clip(metric, rows):
    """A metric's numbers by prompt."""
    features = [feature for feature in (metric.feature, metric.beside) if feature]
    able = [prompt for prompt in rows[features[0]] if all(rows[one][prompt].values is not None for one in features)]
    both = [
        Row(
            Key("s", prompt, 0), "0" * 64, {name: v for one in features for name, v in rows[one][prompt].values.items()}
        )
        for prompt in able
    ]
    if not both:
        return pd.Series(dtype=float)
    keys, table = columns(both)
    return pd.Series(metric.of_clips(table), index=[key.prompt for key in keys])


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric",
    [one for one in METRICS if one.name in WANTED and one.feature in LIVE and one.per_clip],
    ids=lambda one: one.name,
)
def test_it_sees_what_it_must_and_nothing_else(metric, every):
    good = per_clip(metric, every[""])
    rows = []
    for variant in BENCH["VARIANTS"][1:]:
        together = pd.concat([per_clip(metric, every[variant]), good], axis=1, keys=["bad", "good"])
        refused = (together["bad"].isna() & together["good"].notna()).sum() / together["good"].notna().sum()
        effect, p = BENCH["paired"](together.dropna())
        worse = {"lower": effect > 0, "higher": effect < 0}.get(str(metric.direction), effect != 0)
        rows.append((metric.name, variant, CLIPS, refused, np.nan, effect, p, worse))
    found = pd.DataFrame(rows, columns=BENCH["COLUMNS"])
    assert BENCH["broken"](found, {metric.name: WANTED[metric.name]}) == []
