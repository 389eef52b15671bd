"""Other tools' own code, fed with the same features, gives the same distances."""

import warnings

import numpy as np
import pytest
import torch

from avbench.metrics.frechet import frechet_distance
from avbench.metrics.kernel import kernel_distance
from avbench.metrics.neighbours import neighbour_share


@pytest.fixture(scope="module")
def sets():
    random = np.random.default_rng(0)
    spectrum = 3 / np.sqrt(np.arange(1, 65))
    return random.standard_normal((300, 64)) * spectrum + 1, random.standard_normal((300, 64)) * spectrum**1.2 + 1.1


@pytest.mark.slow
def test_torchmetrics(sets):
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = (torch.from_numpy(one) for one in sets)
    moments = [part for one in (x, y) for part in (one.mean(dim=0), one.T.cov())]
    assert frechet_distance(*sets) == pytest.approx(float(fid._compute_fid(*moments)), rel=1e-5)
    assert kernel_distance(*sets) == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-5)


def test_torch_fidelity(sets):
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    moments = [{"mu": one.mean(axis=0), "sigma": np.cov(one, rowvar=False)} for one in sets]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fid.fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"]
        whole = {"kid_subsets": 1, "kid_subset_size": 300, "verbose": False}
        features = [torch.from_numpy(one) for one in sets]
        kernel = kid.kid_features_to_metric(*features, **whole)["kernel_inception_distance_mean"]
        shares = prc.prc_features_to_metric(*(one.float() for one in features), prc_neighborhood=3, verbose=False)
    assert frechet_distance(*sets) == pytest.approx(theirs, rel=1e-5)
    assert kernel_distance(*sets) == pytest.approx(kernel, rel=1e-5)
    for measure in ("precision", "recall"):
        assert neighbour_share(*sets, measure=measure, k=3) == pytest.approx(shares[measure], abs=1e-6)
