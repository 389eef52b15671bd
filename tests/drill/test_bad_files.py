"""Thousands of bad files, made here: each is read, or refused in a sentence; never a traceback, a wait or much memory.

Two ways to make them. Values: every field of a good file in turn becomes each of ODD, is taken out, or gets a
neighbour. Bytes: bits flip, parts vanish, double or become zeros, as on a bad disk; the random numbers are seeded.
docs/reliability.md says what was found; `pytest -m drill tests/drill -rP` prints the counts of every kind.
"""

import contextlib
import copy
import io
import json
import pickle
import random
import resource
import shutil
import signal
import struct
import tomllib
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import evaluated, made_run, unsealed
from safetensors.numpy import save

from avbench.comparison import baseline_file, paper_presets, plan, score_table, votes
from avbench.core import InputError, Row
from avbench.curation import rules
from avbench.features.protocols import protocol_of
from avbench.generation.detect import detect
from avbench.generation.diffusers_package import diffusers
from avbench.generation.providers.videos_api.journal import Journal
from avbench.metrics import imported_statistics, reference
from avbench.report import printed
from avbench.report.page import clips, page
from avbench.storage import reading, shipped
from avbench.storage.reading import pickles
from avbench.storage.runs.folder import RunFolder, read_subset
from avbench.storage.workers.worker_pool import peak_memory_mib
from avbench.storage.writing import line_of, sealed
from avbench.subsets import loading

pytestmark = pytest.mark.drill

SECONDS, MEBIBYTES = 30, 900
"""What one input may take: of time, and of memory beside what the process had."""
ODD = (
    *(None, True, False, 0, -1, 0.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf")),
    *("", " ", "x", "../x", "/etc/passwd", "a\0b", "\ud800", "\x1b[31m", "x" * 5000, "0", "2024-01-01"),
    *([], [1], ["x"], [[]], {}, {"x": 1}, {"": None}),
)


class TookTooLong(BaseException):
    """Raised by the alarm: an input took too long."""


@contextlib.contextmanager
def limited():
    def over(*_):
        raise TookTooLong

    signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def drill(inputs, least):
    """Try (name, action) pairs: prints how many were read and refused; fails on anything else, and if most are read."""
    counts, wrong = Counter(), []
    before = peak_memory_mib(resource.RUSAGE_SELF)
    for name, action in inputs:
        try:
            with limited(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action()
            counts["read"] += 1
        except InputError as error:
            sentence = str(error)
            counts["refused"] += 1
            if not sentence.strip() or "Traceback" in sentence:
                wrong.append((name, "no sentence", sentence))
        except TookTooLong:
            wrong.append((name, "hang", ""))
        except Exception as error:
            wrong.append((name, type(error).__name__, str(error)[:200]))
    grown = peak_memory_mib(resource.RUSAGE_SELF) - before
    print(f"{sum(counts.values()) + len(wrong)} inputs: {dict(counts)}, {len(wrong)} wrong, {grown:.0f} MiB more")  # noqa: T201
    assert not wrong, f"{len(wrong)} wrong: {wrong[:10]}"
    assert grown < MEBIBYTES
    assert sum(counts.values()) >= least, counts
    assert counts["refused"] >= sum(counts.values()) / 2, f"most of these bad files were read: {counts}"


def places(plain, path=()):
    """Where in plain values something can be changed; of a long list only the first of its items."""
    if path:
        yield path
    items = plain.items() if isinstance(plain, dict) else enumerate(plain[:1]) if isinstance(plain, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(plain):
    """Name and content of every change of a value."""
    for odd in ODD:
        yield f"whole={odd!r:.20}", odd
    for path in places(plain):
        for odd in (*ODD, "GONE", "DOUBLED"):
            copied = copy.deepcopy(plain)
            holder = copied
            for key in path[:-1]:
                holder = holder[key]
            if odd == "GONE":
                del holder[path[-1]]
            elif odd == "DOUBLED" and isinstance(holder, dict):
                holder[f"{path[-1]}2"] = holder[path[-1]]
            else:
                holder[path[-1]] = odd
            yield f"{'.'.join(map(str, path))}={odd!r:.20}", copied


def damaged(content, count, seed=0):
    """Bytes after a bad disk."""
    rng = random.Random(seed)
    for number in range(count):
        found = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(max(1, len(found)))
            kind = rng.randrange(6)
            if not found or kind == 0:
                found[at : at + 1] = rng.randbytes(1)
            elif kind == 1:
                found[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del found[at : at + rng.randrange(1, 64)]
            elif kind == 3:
                found[at : at + 64] = bytes(len(found[at : at + 64]))
            elif kind == 4:
                found = found[:at]
            else:
                found[at : at + 8] = struct.pack("<Q", rng.choice((0, 2**20, 2**40, 2**63 - 1, 2**64 - 1)))
        yield f"damage {number}", bytes(found)


def dumped(plain):
    return json.dumps(plain).encode("utf-8", "surrogatepass")


def with_seal(plain):
    """Values with the digest that their file has, so that what comes after its check is tried as well."""
    with contextlib.suppress(ValueError, TypeError):  # what JSON cannot hold has none
        return dumped(sealed(plain))
    return dumped(plain)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("one", "two")):
        folder = evaluated(made_run(place / name, seed=number, count=3, names=["toy-control"]))
        for key, sample in folder.samples().items():
            folder.add_row(protocol_of("i3d-k400"), Row(key, sample.sha256 or "", {"logits": np.arange(4, dtype="f4")}))
    return place


def everything(place):
    """All that is read of a run by the verbs that read one."""
    folder, other = RunFolder(place), RunFolder(place.with_name("two"))
    folder.run(), folder.subsets(), folder.samples(), folder.values(), folder.evaluation().asked
    for feature in ("lpips-alex", "onsets", "i3d-k400"):
        folder.rows(protocol_of(feature)), folder.row_hashes(protocol_of(feature))
        list(folder.stream_rows(protocol_of(feature)))
    frame = score_table.scores_frame([folder, other])
    score_table.over_motion([folder, other])
    score_table.clip_values(folder)
    clips.prepare([folder], place / "media")
    page._coverage([folder], frame), page._origin(folder), printed.sections([folder])


RUN_FILES = ("run.json", "subsets/toy-control.json", "samples.jsonl", "scores.json")


def of_run(runs, name, contents):
    """Actions: put each content in the place of a file of a run, and read the run."""
    path, run = runs / "one" / name, runs / "one" / "run.json"
    good, good_run = path.read_bytes(), run.read_bytes()

    def action(content):
        try:
            path.write_bytes(content)
            if name.startswith("subsets/"):  # somebody who changes a subset changes its digest as well
                plain = {**unsealed(json.loads(good_run)), "subsets": {path.stem: read_subset(path).digest}}
                run.write_bytes(with_seal(plain))
            everything(runs / "one")
        finally:
            path.write_bytes(good)
            run.write_bytes(good_run)

    everything(runs / "one")
    for what, content in contents(good):
        yield f"{name}: {what}", lambda content=content: action(content)


def rows_name(runs):
    return next((runs / "one" / "features").glob("i3d*/rows.jsonl")).relative_to(runs / "one").as_posix()


@pytest.mark.parametrize("name", [*RUN_FILES, "rows.jsonl"])
def test_values_of_a_runs_files(runs, name):
    lines = name.endswith(".jsonl")
    of_file = dumped if name.startswith("subsets/") else with_seal

    def contents(good):
        first, _, rest = good.partition(b"\n") if lines else (good, b"", b"")
        plain = unsealed(json.loads(first))
        if name == "subsets/toy-control.json":
            plain["prompts"] = plain["prompts"][:1]
            plain["prompts"][0]["tags"] = {}
            plain["card"] = {}
        if name == "scores.json":
            plain["protocols"] = {one["protocol"]: {"a": 1} for one in plain["scores"]}
        for what, content in changed(plain):
            yield what, reading.with_checksum(dumped(content)) + b"\n" + rest if lines else of_file(content)

    drill(of_run(runs, rows_name(runs) if name == "rows.jsonl" else name, contents), 150)


@pytest.mark.parametrize("name", [*RUN_FILES, "rows.jsonl", "values.parquet"])
def test_damage_of_a_runs_files(runs, name):
    name = rows_name(runs) if name == "rows.jsonl" else name
    drill(of_run(runs, name, lambda good: damaged(good, 150)), 150)


def read_each(path, contents, read):
    for what, content in contents:

        def action(content=content):
            path.write_bytes(content)
            read(path)

        yield what, action


def test_prompts(tmp_path):
    good = {"id": "a", "video_caption": "x", "audio_caption": "y", "tags": {"file": "a", "split": "dev"}}
    path = tmp_path / "prompts.jsonl"

    def read(path):
        subset = loading.from_prompts_file(path)
        assert subset.digest
        with contextlib.suppress(InputError):
            loading.viewed(subset, "dev")

    values = [(what, dumped(one) + b"\n") for what, one in changed(good)]
    bytes_ = damaged(dumped(good) + b"\n" + dumped({**good, "id": "b"}) + b"\n", 300)
    drill(read_each(path, [*values, *bytes_], read), 400)


def toml(plain):
    """TOML of plain values, where they can be written."""
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items() if not isinstance(value, dict))
    for name, table in plain.items():
        if isinstance(table, dict):
            text += f"[{json.dumps(name)}]\n" + "".join(
                f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in table.items()
            )
    return text.replace("NaN", "nan").replace("Infinity", "inf").encode("utf-8", "surrogatepass")


def test_cards_and_plans_and_presets_and_rules(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "video_caption": "x"}\n')
    spec = {"width": 64, "height": 64, "frames": 16, "fps": 8, "sample_rate": 16000}
    card = {"name": "s", "version": 1, "lite": ["a"], "clip_spec": spec}
    a_plan = {"alpha": 0.05, "margin": {"fvd": 5.0, "toy-control/kvd": 1}, "question": []}
    jobs = (
        (tmp_path / "card.toml", card, toml(card), lambda path: loading.load(f"{path.parent}/").digest),
        (tmp_path / "plan.toml", a_plan, toml(a_plan), plan.read),
        (tmp_path / "preset.toml", None, next(Path(paper_presets.__file__).parent.glob("*.toml")).read_bytes(), None),
        (tmp_path / "rules.toml", None, rules.SHIPPED.read_bytes(), rules.read),
    )
    inputs = []
    for path, plain, good, read in jobs:
        read = read or (lambda path: paper_presets.load(str(path)))
        values = [(what, toml(one)) for what, one in changed(plain) if isinstance(one, dict)] if plain else []
        path.write_bytes(good)
        read(path)
        for what, action in read_each(path, [*values, *damaged(good, 150)], read):
            inputs.append(
                (f"{path.name}: {what}", lambda action=action, path=path, good=good: _restored(path, good, action))
            )
    drill(inputs, 800)


def _restored(path, good, action):
    try:
        action()
    finally:
        path.write_bytes(good)


def test_votes_and_journals(tmp_path):
    vote = {"subset": "s", "prompt": "p", "seed": 0, "left": "a", "right": "b", "vote": "left", "conformed": {}}
    ballot = {"avbench_votes": 2, "seed": 1, "runs": ["a", "b"], "subsets": {"s": "d"}, "votes": [vote]}

    def count(path):
        found = votes.read([path])
        votes.pairs(found), votes.strengths(found), votes.remarks(found)

    step = {"key": ["s", "p", 0], "state": "intent", "prompt": "x", "token": "t", "unix_seconds": 1.0, "job": "j"}
    values = [(what, dumped(one)) for what, one in changed(ballot)]
    drill(read_each(tmp_path / "v.json", [*values, *damaged(dumped(ballot), 200)], count), 500)
    steps = [(what, reading.with_checksum(dumped(one)) + b"\n") for what, one in changed(step)]
    drill(read_each(tmp_path / "jobs.jsonl", [*steps, *damaged(line_of(step), 100)], Journal), 300)


def packed(content):
    kept = io.BytesIO()
    torch.save(content, kept)
    return kept.getvalue()


def test_other_tools_statistics_and_weights(tmp_path):
    stats = {"capture_mean_cov": True, "num_items": 100, "raw_mean": np.arange(4.0), "raw_cov": np.eye(4) * 100}
    kept = io.BytesIO()
    np.savez_compressed(kept, mu=np.zeros(40), sigma=np.eye(40))
    odd_arrays = [np.zeros(4, kind) for kind in ("c16", "M8[s]", "m8[s]", "?", "S3", "U3", "O", [("a", "f8")])]
    odd_pickles = [
        (f"{name}={value!r:.30}", pickle.dumps({**stats, name: value}))
        for name in stats
        for value in (*ODD, *odd_arrays)
    ]
    inputs = []
    for kind, good, count in (
        ("stylegan-v", pickle.dumps(stats), 300),
        ("pytorch-fid", kept.getvalue(), 200),
        ("torch-fidelity", packed({"mu": np.zeros(4), "sigma": np.eye(4)}), 150),
        ("torch-fidelity", packed(torch.zeros(5, 4)), 100),
    ):
        contents = [*damaged(good, count), *(odd_pickles if kind == "stylegan-v" else ())]
        inputs += read_each(
            tmp_path / "x", contents, lambda path, kind=kind: imported_statistics.read(path, kind, n=100)
        )
    arrays = pickle.dumps({"a": {"b": np.zeros((2, 3), np.float32)}, "c": np.arange(3)}, protocol=2)
    inputs += read_each(tmp_path / "x", damaged(arrays, 200), pickles.read_arrays)
    inputs += read_each(tmp_path / "x", damaged(packed({"a": torch.zeros(2, 2)}), 100), pickles.read_state_dict)
    drill(inputs, 1200)


def test_references(tmp_path):
    place = tmp_path / "ref"
    shutil.copytree(shipped.folder("reference_stats") / "toy-control", place)
    real = reference.load(place)
    feature = next(iter(real.values))
    inputs = []
    for name, count in (("card.json", 0), ("clips.csv", 200), ("columns.safetensors", 120)):
        path, good = place / name, (place / name).read_bytes()
        plain = json.loads(good) if name == "card.json" else {}
        plain = {key: plain[key] for key in plain if key != "protocols"} | (
            {"protocols": {feature: {"name": feature}}} if plain else {}
        )
        contents = [(what, dumped(one)) for what, one in changed(plain)] if plain else list(damaged(good, count))
        for what, content in contents:

            def action(path=path, content=content):
                path.write_bytes(content)
                card = place / "card.json"
                if path != card:
                    known = json.loads(card.read_text())
                    known["sha256"][path.name] = reference.file_sha256(path)
                    card.write_text(json.dumps(known))
                reference.load(place)

            kept = {one: one.read_bytes() for one in (path, place / "card.json")}

            def restored(action=action, kept=kept):
                try:
                    action()
                finally:
                    for one, content in kept.items():
                        one.write_bytes(content)

            inputs.append((f"{name}: {what}", restored))
    drill(inputs, 500)


def test_heads_of_weights(tmp_path):
    assert diffusers().WanPipeline  # its import takes long on a busy machine, and is not what is timed
    good = save({"a.lora_A": np.zeros(3)}, {"format": "pt"})
    text = struct.pack("<QIQ", 1, 8, 2)[:8] + b"k" + struct.pack("<IQ", 8, 2) + b"ab"
    gguf = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text
    (tmp_path / "g.gguf").write_bytes(gguf)
    assert detect(tmp_path / "g.gguf").kind == "GGUF"
    inputs = [*read_each(tmp_path / "x.safetensors", damaged(good, 300), detect)]
    inputs += read_each(tmp_path / "y.safetensors", damaged(good, 150), reading.read_tensors)
    inputs += read_each(tmp_path / "x.gguf", damaged(gguf, 300), detect)
    for name in ("model_index.json", "modular_model_index.json", "config.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        plain = {"_class_name": "WanPipeline", "format": "avfulldit-1", "video": {}}
        inputs += read_each(
            folder / name, [(what, dumped(one)) for what, one in changed(plain)], lambda path: detect(path.parent)
        )
    drill(inputs, 900)


def test_baselines(runs, tmp_path):
    baseline_file.update(RunFolder(runs / "two"), tmp_path / "good.zip", "a reason")
    good = (tmp_path / "good.zip").read_bytes()

    def read(path):
        place = path.with_name("unpacked")
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            found = RunFolder(baseline_file._unpacked(path, place))
            found.run(), found.scores(), found.samples(), found.values()

    drill(read_each(tmp_path / "b.zip", damaged(good, 300), read), 300)


def test_the_tools_of_this_drill():
    assert len(list(changed({"a": [1, 2]}))) == len(ODD) + 2 * (len(ODD) + 2)
    assert tomllib.loads(toml({"a": 1, "b": {"c": float("nan")}}).decode())["a"] == 1
    with pytest.raises(AssertionError, match="KeyError"):
        drill([("x", lambda: {}["x"])], 0)
    with pytest.raises(AssertionError, match="most of these bad files were read"):
        drill([("x", lambda: None)], 1)
