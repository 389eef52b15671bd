"""Other tools' statistics are taken in as they are; nothing in a file is run, and nothing wrong gets through."""

import json
import os
import pickle
import resource
import shlex

import numpy as np
import pytest
import torch
from command_line import run_avbench

from avbench.core import InputError, NotMeasurable
from avbench.features.video.i3d.conventions import StyleGANV
from avbench.metrics import imported_statistics, reference, reference_building
from avbench.metrics.frechet import frechet_distance, frechet_of_moments
from avbench.storage.reading.pickles import read_arrays
from avbench.storage.workers.worker_pool import peak_memory_mib
from avbench.subsets import loading

FEATURES = np.random.default_rng(0).standard_normal((50, 6)) * np.arange(1, 7) + 3


WIDE = np.random.default_rng(1).standard_normal((50, 400))
"""As many dimensions as I3D has logits."""


def feature_stats(features=FEATURES, **changes):
    """As StyleGAN-V's and cd-fvd's FeatureStats pickle themselves."""
    sums = {"raw_mean": features.sum(axis=0), "raw_cov": features.T @ features}
    rest = {"capture_all": False, "capture_mean_cov": True, "max_items": 2048, "num_features": 6, "all_features": None}
    return {**rest, "num_items": len(features), **sums, **changes}


def mu_sigma(features=FEATURES):
    return {"mu": features.mean(axis=0), "sigma": np.cov(features, rowvar=False)}


def write(tmp_path, kind, content):
    path = tmp_path / f"stats-{kind}"
    if kind in ("stylegan-v", "cd-fvd"):
        path.write_bytes(pickle.dumps(content))
    elif kind == "pytorch-fid":
        path = path.with_suffix(".npz")
        np.savez(path, **content)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("kind", "content", "n", "divisor"),
    [
        ("stylegan-v", feature_stats(), None, "n"),
        ("cd-fvd", feature_stats(num_items=np.int64(50)), None, "n"),
        ("pytorch-fid", mu_sigma(), 50, "n - 1"),
        ("torch-fidelity", mu_sigma(), 50, "n - 1"),
        ("torch-fidelity", torch.from_numpy(FEATURES), None, "n - 1"),
    ],
)
def test_what_a_tool_wrote_is_what_its_features_were(tmp_path, kind, content, n, divisor):
    found = imported_statistics.read(write(tmp_path, kind, content), kind, n=n)
    assert found.divisor == divisor and found.moments.n == 50
    other = FEATURES[::-1] * 1.1 + 1
    for ddof in (0, 1):
        distance = frechet_of_moments(found.moments, imported_statistics.Moments.of(other), ddof=ddof)
        assert distance == pytest.approx(frechet_distance(FEATURES, other, ddof=ddof), rel=1e-9)


def test_n_must_be_said_once_and_truly(tmp_path):
    path = write(tmp_path, "pytorch-fid", mu_sigma())
    with pytest.raises(InputError, match="does not hold its number of clips; give --n"):
        imported_statistics.read(path, "pytorch-fid")
    with pytest.raises(InputError, match="it is of 1000000000000000000000 clips"):
        imported_statistics.read(path, "pytorch-fid", n=10**21)
    lacking = {name: one for name, one in feature_stats().items() if name != "raw_mean"}
    with pytest.raises(InputError, match="is not a cd-fvd file: it has no 'raw_mean'"):
        imported_statistics.read(write(tmp_path, "cd-fvd", lacking), "cd-fvd")
    with pytest.raises(InputError, match="of 50 clips, not of 60"):
        imported_statistics.read(write(tmp_path, "cd-fvd", feature_stats()), "cd-fvd", n=60)
    with pytest.raises(InputError, match="did you mean 'cd-fvd'"):
        imported_statistics.read(path, "cdfvd")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mu": np.full(6, np.nan)}, "NaN or infinity"),
        ({"mu": np.zeros(5)}, r"mean has shape \(5,\)"),
        ({"sigma": np.triu(np.ones((6, 6)))}, "not symmetric"),
        ({"sigma": -np.eye(6)}, "eigenvalue of -1"),
        ({"sigma": np.zeros((6, 6))}, "its covariance is zero"),
    ],
)
def test_statistics_that_no_features_have_are_refused(tmp_path, change, why):
    with pytest.raises(InputError, match=f"cannot be used: .*{why}"):
        imported_statistics.read(write(tmp_path, "pytorch-fid", {**mu_sigma(), **change}), "pytorch-fid", n=50)


class Code:
    """A pickle that would run something."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kind", imported_statistics.FORMATS)
def test_code_in_a_file_is_not_run(tmp_path, kind):
    mark = tmp_path / "was-run"
    path = tmp_path / "evil"
    if kind == "pytorch-fid":
        path = tmp_path / "evil.npz"
        np.savez(path, mu=np.array([Code(mark)], dtype=object), sigma=np.eye(1), allow_pickle=True)
    elif kind == "torch-fidelity":
        torch.save({"mu": Code(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({**feature_stats(), "raw_mean": Code(mark)}))
    with pytest.raises(InputError):
        imported_statistics.read(path, kind, n=50)
    assert not mark.exists()


@pytest.mark.parametrize("kind", imported_statistics.FORMATS)
def test_other_files_are_refused_in_a_sentence(tmp_path, kind):
    for content in (b"", b"no statistics", pickle.dumps([1, 2])):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(InputError):
            imported_statistics.read(path, kind, n=50)


def test_an_imported_reference_gives_distances_and_says_what_it_cannot(tmp_path):
    file = write(tmp_path, "stylegan-v", feature_stats(WIDE))
    protocol = StyleGANV.protocol
    options = {"n": None, "source": "UCF-101, test split", "licence": "CC0"}
    reference_building.import_statistics(file, "stylegan-v", protocol, None, tmp_path / "ucf", **options)
    subset = loading.load("toy-control").limited(2)
    found = reference.find(subset, tmp_path / "ucf")
    assert found.moments(protocol, "logits_random", subset).n == 50, "the embedding that fvd_stylegan_v reads"
    assert found.card["imported"]["divisor"] == "n" and found.card["imported"]["claimed"]
    with pytest.raises(NotMeasurable, match="holds only moments of i3d-stylegan-v"):
        found.columns(protocol, subset)
    with pytest.raises(InputError, match="has no i3d-k400; it has i3d-stylegan-v"):
        found.columns(StyleGANV.__mro__[1].protocol, subset)


@pytest.mark.parametrize(
    ("feature", "column", "features", "words"),
    [
        ("i3d-stylegan-v", "logits", "wide", "no metric reads the mean and covariance of 'logits' of i3d-stylegan-v; "),
        ("onsets", None, "wide", "no metric computes a distance from mean and covariance of onsets"),
        ("i3d-k400", None, "narrow", "has 6 dimensions, and i3d-k400 has 400: it is of another network"),
    ],
)
def test_statistics_that_no_metric_could_use_are_refused(tmp_path, feature, column, features, words):
    file = write(tmp_path, "stylegan-v", feature_stats(WIDE if features == "wide" else FEATURES))
    options = ["--format", "stylegan-v", "--feature", feature, "--source", "mine", "--licence", "CC0"]
    options += [] if column is None else ["--column", column]
    refused = run_avbench("reference", "import", file, *options, "--out", tmp_path / "out", code=2)
    assert words in refused.stderr and not (tmp_path / "out").exists()


def test_the_command_takes_a_file_in_or_leaves_nothing(tmp_path, monkeypatch):
    options = ["--feature", "i3d-cd-fvd", "--source", "mine", "--licence", "CC0", "--out", tmp_path / "out"]
    good = write(tmp_path, "cd-fvd", feature_stats(WIDE))
    evil = tmp_path / "evil"
    evil.write_bytes(pickle.dumps(Code(tmp_path / "was-run")))
    refused = run_avbench("reference", "import", evil, "--format", "cd-fvd", *options, code=2)
    assert "system, which builds no array; it was refused and not run" in refused.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "was-run").exists()
    run_avbench("reference", "import", good, "--format", "cd-fvd", *options)
    run_avbench("reference", "import", good, "--format", "cd-fvd", *options)
    shown = run_avbench("reference", "show", tmp_path / "out").stdout
    assert '"divisor": "n"' in shown
    (tmp_path / "out/card.json").unlink()
    monkeypatch.chdir(tmp_path)
    run_avbench(*shlex.split(json.loads(shown)["command"])[1:])
    assert run_avbench("reference", "show", "out").stdout == shown


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("stylegan-v", {"num_items": 100.7}, r"its num_items is 100\.7; it must be a whole number"),
        ("stylegan-v", {"num_items": "50"}, "its num_items is '50'"),
        ("stylegan-v", {"num_items": True}, "its num_items is True"),
        ("stylegan-v", {"num_items": float("nan")}, "its num_items is nan"),
        ("stylegan-v", {"num_items": 0}, "it is of 0 clips"),
        ("stylegan-v", {"raw_mean": FEATURES.sum(axis=0) + 0j}, "its raw_mean is an array of complex128"),
        ("stylegan-v", {"raw_mean": np.zeros(6, "M8[s]")}, "an array of the type 'M8' is not a numeric array"),
        ("stylegan-v", {"raw_mean": np.zeros(6, "m8[s]")}, "an array of the type 'm8' is not a numeric array"),
        ("stylegan-v", {"raw_mean": np.zeros(6, bool)}, "its raw_mean is an array of bool"),
        ("stylegan-v", {"raw_mean": [0.0] * 6}, "its raw_mean is list; it must be an array of real numbers"),
        ("stylegan-v", {"raw_cov": np.zeros((6, 6), complex)}, "its raw_cov is an array of complex128"),
        ("stylegan-v", {"raw_cov": np.zeros((5, 5))}, r"covariance \(5, 5\)"),
        ("pytorch-fid", {"mu": np.zeros(6, complex)}, "complex128"),
        ("pytorch-fid", {"sigma": np.zeros((6, 6), "M8[s]")}, "datetime64"),
        ("pytorch-fid", {"mu": np.zeros(6, bool)}, "its mean is an array of bool"),
        ("torch-fidelity", {"mu": np.zeros(6, complex)}, "complex128|cannot be read"),
        ("torch-fidelity", {"mu": torch.zeros(6, dtype=torch.complex64), "sigma": torch.eye(6)}, "its mean is Tensor"),
        ("torch-fidelity", {"mu": torch.zeros(6), "sigma": torch.zeros(6, 6).to_sparse()}, "Tensor|cannot be read"),
        ("torch-fidelity", {"mu": "x"}, "its mean is str"),
    ],
)
def test_what_is_no_real_number_makes_none(tmp_path, kind, changes, words):
    good = feature_stats() if kind == "stylegan-v" else mu_sigma()
    with pytest.raises(InputError, match=words):
        imported_statistics.read(write(tmp_path, kind, {**good, **changes}), kind, n=50)


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(4, 4, dtype=torch.complex64),
        torch.zeros(4, 4, dtype=torch.bool),
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(4, 4, device="meta"),
        torch.zeros(1, 4).expand(10**9, 4),
        torch.zeros(4),
    ],
)
def test_features_that_are_no_plain_tensor_are_refused(tmp_path, features):
    with pytest.raises(InputError):
        imported_statistics.read(write(tmp_path, "torch-fidelity", features), "torch-fidelity")


def test_whole_numbers_of_any_type_are_counts_and_tensors_are_means(tmp_path):
    for count in (50, np.int32(50), 50.0, np.float64(50)):
        assert (
            imported_statistics.read(write(tmp_path, "cd-fvd", feature_stats(num_items=count)), "cd-fvd").moments.n
            == 50
        )
    tensors = {name: torch.from_numpy(one) for name, one in mu_sigma().items()}
    found = imported_statistics.read(write(tmp_path, "torch-fidelity", tensors), "torch-fidelity", n=50).moments
    np.testing.assert_allclose(found.mean, FEATURES.mean(axis=0))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02K\x01r\xff\xff\xff\x0f.",  # a place in the pickle's memory that takes 2 GB
        b"\x80\x05\x96\x00\x00\x00\x00\x02\x00\x00\x00abc.",  # 8 GB of bytes that are not there
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93\x8a\x05\x00\x00\x00\x00\x10\x85\x85R.",  # an array of 2^36 items
        b"\x80\x04" + b"}K\x01" * 100_000 + b"N" + b"s" * 100_000 + b".",
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
)
@pytest.mark.slow
def test_a_pickle_takes_no_more_memory_than_it_fills(tmp_path, content):
    path = tmp_path / "stats.pkl"
    path.write_bytes(content)
    for read in (lambda: imported_statistics.read(path, "stylegan-v"), lambda: read_arrays(path)):
        before = peak_memory_mib(resource.RUSAGE_SELF)
        with pytest.raises(InputError):
            read()
        assert peak_memory_mib(resource.RUSAGE_SELF) - before < 300


@pytest.mark.slow
def test_a_small_file_does_not_unpack_to_a_large_one(tmp_path):
    big = np.zeros((6000, 6000))
    np.savez_compressed(tmp_path / "big.npz", mu=np.zeros(6000), sigma=big)
    assert (tmp_path / "big.npz").stat().st_size < 500_000
    with pytest.raises(InputError, match=r"would take 288\.\d MB of memory; at most 268\.4 MB"):
        imported_statistics.read(tmp_path / "big.npz", "pytorch-fid", n=10)
