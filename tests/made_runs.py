"""Evaluated runs of made-up rows: what comparisons are made of, without a clip."""

import numpy as np

from avbench.core import Key, Row, Run, Sample, digest
from avbench.features.protocols import protocol_of
from avbench.metrics import reference
from avbench.metrics.evaluate import chosen_metrics, evaluate, values_of_real
from avbench.storage.runs.folder import VALUES_FILE, RunFolder
from avbench.subsets import loading

SUBSETS = {name: loading.load(name).limited(24) for name in ("toy-control", "toy-object-contact")}
METRICS = ("lpips_consecutive", "onset_rate")


def of_real(subset, metric):
    """Prompt → what the reference's clips of it have."""
    (known,) = chosen_metrics([metric])
    found = values_of_real(known, protocol_of(known.feature), reference.find(subset), subset)
    return found.groupby(level=0).mean()


REAL = {name: {metric: of_real(subset, metric) for metric in METRICS} for name, subset in SUBSETS.items()}


def made_run(place, *, seed=0, lpips=0.0, onsets=0.0, seeds=(0,), count=24, settings=None, names=None):
    """A run whose clips are a little random, about their reference's; the numbers move a metric, `count` is how many
    prompts have clips.
    """
    folder = RunFolder(place)
    asked = [SUBSETS[name] for name in names or SUBSETS]
    run = Run(place.name, "made:up", settings or {}, {one.name: one.digest for one in asked}, seeds, {}, {})
    folder.start(run, asked)
    shared, own = np.random.default_rng(1), np.random.default_rng([2, seed])
    for subset in asked:
        for prompt in subset.prompts[:count]:
            of_prompt = shared.standard_normal()
            for number in seeds:
                key = Key(subset.name, prompt.id, number)
                sha256 = digest([place.name, *key])
                folder.add_sample(Sample(key, f"clips/{key.prompt}-{number}.mkv", sha256, 0.0))
                real = {metric: values[prompt.id] for metric, values in REAL[subset.name].items()}
                apart = 0.001 * (of_prompt + 0.5 * own.standard_normal()) + lpips
                values = {
                    "lpips-alex": {"mean": real["lpips_consecutive"] + apart},
                    "onsets": {"onset_rate": 2.0 + own.standard_normal() + onsets},
                }
                for feature, row in values.items():
                    folder.add_row(protocol_of(feature), Row(key, sha256, row))
    return folder


def unsealed(plain):
    """Fields of a file or a line without their checksum, for a test that changes them."""
    return {name: value for name, value in plain.items() if name not in ("crc32", "sha256")}


def values_of(folder):
    """The file of an evaluation's values, to be written with other scores."""
    return {VALUES_FILE: (folder.path / VALUES_FILE).read_bytes()}


def evaluated(folder, *metrics):
    """The folder, scored."""
    evaluate(folder, chosen_metrics(list(metrics or METRICS)))
    return folder
