"""Each code's way of showing a clip to I3D is the one that its protocol states."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from avbench.core import Clip, NotMeasurable
from avbench.features.networks import planes
from avbench.features.table import FEATURES, feature_class
from avbench.features.video.i3d import I3DLogits, conventions
from avbench.metrics.table import FVD_PROTOCOLS, METRICS

CONVENTIONS = ["StyleGANV", "CDFVD", "FVDComparison", "CommonMetrics", "ASVA", "FastVideo", "JavisBench"]


def noise(frames=16, height=48, width=64, fps=8, seed=0):
    shape = (frames, height, width, 3)
    return Clip(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), fps)


@pytest.fixture(scope="module")
def real():
    """The network itself, built once."""
    return I3DLogits()


@pytest.fixture
def shown(monkeypatch):
    """Builds a feature whose network notes what it is shown, [time, 3, 224, 224], and gives 400 zeros."""

    def build(name):
        seen = []

        def network(x):
            seen.append(x[0].transpose(0, 1).cpu().clone())
            return torch.zeros(1, 400)

        monkeypatch.setattr(I3DLogits, "_load", lambda self: network)
        return getattr(conventions, name)(), seen

    return build


def by_hand(frames, size, **options):
    return functional.interpolate(planes(frames), size, mode="bilinear", align_corners=False, **options)


def test_every_protocol_has_a_feature_of_its_own():
    digests = {feature_class(FEATURES_OF[name]).protocol.digest for name in FVD_PROTOCOLS}
    assert len(digests) == len(FVD_PROTOCOLS)
    for name in CONVENTIONS:
        protocol = getattr(conventions, name).protocol
        assert protocol.name in FEATURES and protocol.notes["source"] and protocol.steps


FEATURES_OF = {
    protocol: next(metric.feature for metric in METRICS if metric.name == name)
    for protocol, name in FVD_PROTOCOLS.items()
}


def test_stylegan_v_stretches_and_draws_a_window_from_the_pixels(shown):
    feature, seen = shown("StyleGANV")
    clip = noise(frames=20)
    feature(clip)
    feature(clip)
    torch.testing.assert_close(seen[0], by_hand(clip.frames[:16], (224, 224)) / 127.5 - 1)
    starts = [
        next(
            k
            for k in range(5)
            if torch.allclose(x, by_hand(clip.frames[k : k + 16], (224, 224)) / 127.5 - 1, rtol=0, atol=1e-4)
        )
        for x in seen
    ]
    assert starts[: len(starts) // 2] == starts[len(starts) // 2 :]
    drawn = {conventions._random_window(noise(frames=20, seed=seed).frames, 16).start for seed in range(40)}
    assert drawn == {0, 1, 2, 3, 4}
    assert np.array_equal(*feature(noise()).values())


def test_cd_fvd_crops_a_square_of_256_first(shown):
    feature, seen = shown("CDFVD")
    clip = noise(height=300, width=420)
    feature(clip)
    in_1 = functional.interpolate(planes(clip.frames) / 255, (256, 359), mode="bilinear", antialias=True)
    square = (in_1[..., 51:307] * 255).byte().float()
    right = functional.interpolate(square, (224, 224), mode="bilinear", align_corners=False) / 127.5 - 1
    torch.testing.assert_close(seen[0], right)


@pytest.mark.parametrize("length", [64, 224, 300])
def test_the_resize_of_tensorflow_1_has_no_half_pixel_centres(length):
    x = torch.rand(1, 3, length, length)
    resized = conventions._legacy_bilinear(x)
    if length == 224:
        assert torch.equal(resized, x)
    for row, column in ((0, 0), (5, 130), (223, 223)):
        at = [np.float32(k) * length / 224 for k in (row, column)]
        low = [int(a) for a in at]
        high = [min(a + 1, length - 1) for a in low]
        share = [a - b for a, b in zip(at, low, strict=True)]
        corners = x[0, 0][np.ix_([low[0], high[0]], [low[1], high[1]])]
        right = np.array([1 - share[0], share[0]]) @ corners.numpy() @ np.array([1 - share[1], share[1]])
        assert float(resized[0, 0, row, column]) == pytest.approx(right, abs=1e-5)


def test_common_metrics_keeps_the_aspect(shown):
    feature, seen = shown("CommonMetrics")
    clip = noise(frames=11, height=48, width=97)
    feature(clip)
    right = by_hand(clip.frames, (224, 453))[..., 114:338] / 127.5 - 1
    torch.testing.assert_close(seen[0], right, atol=1e-5, rtol=0)


def numbered(count):
    """Frames that are told by their value."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 40, 60, 3)).copy()


def numbers(x):
    """Of the frames that were shown."""
    return ((x[:, 0, 112, 112] + 1) * 127.5).round().int().tolist()


def test_asva_takes_the_first_frame_at_or_after_each_sixth_of_a_second(shown):
    feature, seen = shown("ASVA")
    row = feature(Clip(numbered(32), 8))
    expected = [0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15]
    for window, start in zip(seen, (0, 8, 16), strict=True):
        assert numbers(window) == [start + k for k in expected]
    assert row["logits"].shape == (400,) and row["logits_windows"].shape == (3, 400)
    with pytest.raises(NotMeasurable, match=r"windows of 2 s and this clip has 1\.875 s"):
        feature(noise(frames=15))


def test_asva_repeats_the_last_frame_of_a_window_of_a_slow_clip(shown):
    feature, seen = shown("ASVA")
    feature(Clip(numbered(12), 4))
    assert numbers(seen[0]) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]
    assert numbers(seen[2]) == [4, 5, 6, 7, 8, 9, 10, 11, 11, 11, 11, 11]


def test_asva_lets_a_bicubic_curve_swing_past_black_and_white(shown):
    feature, seen = shown("ASVA")
    feature(Clip((numbered(16) * 0 + np.arange(60)[:, None] // 20 % 2 * 255).astype(np.uint8), 8))
    assert seen[0].min() < -1.001 and seen[0].max() > 1.001


def test_fastvideo_takes_every_frame_and_scales_first(shown):
    feature, seen = shown("FastVideo")
    clip = noise(frames=21)
    feature(clip)
    torch.testing.assert_close(seen[0], by_hand(clip.frames, (224, 224)) / 127.5 - 1, atol=1e-5, rtol=0)


def test_javisbench_shows_half_the_contrast_on_purpose(shown):
    feature, seen = shown("JavisBench")
    white_and_black = np.zeros((16, 64, 112, 3), np.uint8)
    white_and_black[:, :, :56] = 255
    feature(Clip(white_and_black, 8))
    x = seen[0]
    assert x.shape == (24, 3, 224, 224)
    assert x.max() == 1 and -0.005 < x.min() <= 0, "where the network was trained for -1...1"
    assert (x[:, :, :48] == x.min()).all() and (x[:, :, -48:] == x.min()).all(), "letterboxed"
    assert "defect" in feature.protocol.notes["value_range"]


@pytest.mark.parametrize(("height", "width"), [(97, 53), (300, 420)])
def test_javisbench_rounds_places_and_cuts_lengths(shown, height, width):
    feature, seen = shown("JavisBench")
    clip = noise(frames=37, height=height, width=width)
    feature(clip)
    size = (224, 122) if height > width else (160, 224)
    chosen = [int(k * 36 / 23 + 0.5) for k in range(24)]
    inside = functional.interpolate(planes(clip.frames[chosen]) / 255, size, mode="bilinear", antialias=True)
    top, left = (224 - size[0]) // 2, (224 - size[1]) // 2
    shown_inside = seen[0][:, :, top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(shown_inside, ((inside + 1) * 127.5).byte() / 127.5 - 1)


@pytest.mark.parametrize(("name", "frames"), [("StyleGANV", 15), ("CDFVD", 15), ("CommonMetrics", 9), ("FastVideo", 9)])
def test_short_clips_are_told_so(shown, name, frames):
    feature, _ = shown(name)
    with pytest.raises(NotMeasurable, match=f"this clip has {frames}"):
        feature(noise(frames=frames))


@pytest.mark.slow
def test_conventions_differ_by_what_they_say_and_not_more(real, monkeypatch):
    monkeypatch.setattr(I3DLogits, "_load", lambda self: real._network)
    clip = noise(height=224, width=224)
    ours = real(clip)["logits"]
    same = [conventions.StyleGANV()(clip)["logits"], conventions.FVDComparison()(clip)["logits"]]
    same += [conventions.CommonMetrics()(clip)["logits"], conventions.FastVideo()(clip)["logits"]]
    for logits in same:
        np.testing.assert_allclose(logits, ours, atol=1e-3)
    assert np.abs(conventions.JavisBench()(clip)["logits"] - ours).max() > 0.1
