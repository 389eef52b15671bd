"""What cannot be measured gets a sentence, not a number: every feature and metric that needs no brought weights."""

import sys

import numpy as np
import pytest

from avbench.core import Audio, Clip, InputError, Key, NotMeasurable, Row, columns, resolve
from avbench.features.table import FEATURES, NO_SOUND, feature_class
from avbench.metrics.table import METRICS
from avbench.subsets import loading

FRAMES = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
SOUND = (0.1 * np.random.default_rng(1).standard_normal((1, 32000))).astype(np.float32)
CLIPS = {
    "no sound": Clip(FRAMES, 8),
    "silent": Clip(FRAMES, 8, Audio(np.zeros((1, 32000), np.float32), 16000)),
    "static": Clip(FRAMES[:1].repeat(16, 0), 8, Audio(SOUND, 16000)),
    "two frames": Clip(FRAMES[:2], 8, Audio(SOUND, 16000)),
    "one pixel high": Clip(np.ascontiguousarray(FRAMES[:, :1]), 8, Audio(SOUND, 16000)),
    "all black": Clip(np.zeros_like(FRAMES), 8, Audio(SOUND, 16000)),
    "10 ms of sound": Clip(FRAMES, 8, Audio(SOUND[:, :160], 16000)),
}
WEIGHTLESS = ("flow-dis", "onsets", "levels", "av-align", "toy-physics", "vbench-flicker")
NO_NUMBER = {
    "no sound": {"onset_rate", "sync_excess", "sync_lag", "av_align", "loudness", "silence"},
    "silent": {"sync_excess", "sync_lag", "sync_p", "av_align", "loudness"},
    "static": {"warping_error", "flow_consistency", "acceleration", "still_flicker", "sync_excess", "av_align"},
    "two frames": {"warping_error", "motion_amount", "event_rate", "sync_excess", "av_align"},
    "one pixel high": {"warping_error", "motion_amount", "event_rate", "sync_excess"},
    "all black": {"warping_error", "flow_consistency", "sync_excess", "av_align", "toy_contact", "toy_gravity_error"},
    "10 ms of sound": {"onset_rate", "sync_excess", "sync_lag", "loudness"},
}


def values(feature, clip):
    """A feature's values, or the sentence."""
    look = resolve(FEATURES[feature])()
    prompt = loading.load("toy-object-contact").prompts[0]
    try:
        return look(clip, prompt) if getattr(look, "requires", "clip") == "prompt" else look(clip)
    except NotMeasurable as reason:
        return str(reason)


def test_features_that_need_sound_say_so():
    """A module that takes a clip's sound imports one of three names; of PE-AV, one feature leaves the sound out."""
    for feature in FEATURES:
        kind = feature_class(feature)
        modules = [sys.modules[base.__module__] for base in kind.__mro__[:-1]]
        takes = any({"sound_of", "mono_waveform", "waveform"} & {*vars(module)} for module in modules)
        frames_alone = getattr(kind, "ends", ("sound",)) == ("frames", "video_caption")
        assert getattr(kind, "needs_sound", False) == (takes and not frames_alone), feature
        if feature in WEIGHTLESS and takes:
            assert values(feature, CLIPS["no sound"]) == NO_SOUND


@pytest.mark.parametrize("name", CLIPS)
def test_what_cannot_be_measured_is_no_number(name):
    measured = {feature: values(feature, CLIPS[name]) for feature in WEIGHTLESS}
    for feature, found in measured.items():
        if isinstance(found, str):
            assert (" " in found and found[0].islower()) or found.startswith("AV-Align"), f"{feature}: {found}"
        else:
            Row(Key("s", "p", 0), "0" * 64, found)  # refuses NaN
    refused = set()
    for metric in METRICS:
        needed = [feature for feature in (metric.feature, metric.beside) if feature]
        if not all(feature in measured for feature in needed) or metric.column:
            continue
        if any(isinstance(measured[feature], str) for feature in needed):
            refused.add(metric.name)
            continue
        both = {key: value for feature in needed for key, value in measured[feature].items()}
        number = metric.of_clips(columns([Row(Key("s", "p", 0), "0" * 64, both)])[1])
        assert number.shape == (1,)
        if np.isnan(number[0]):
            refused.add(metric.name)
            assert metric.unable
    assert NO_NUMBER[name] <= refused, NO_NUMBER[name] - refused


def test_a_clip_with_nan_in_its_sound_cannot_be_built():
    wave = SOUND.copy()
    wave[0, 5] = np.nan
    with pytest.raises(InputError, match="1 sample that is NaN"):
        Audio(wave, 16000)
