"""The words refuse what they cannot mean, and keep what they promise."""

import base64
import datetime
import re
import urllib.parse
from fractions import Fraction

import numpy as np
import pytest
import torch

from avbench.core import (
    Audio,
    Clip,
    ClipSpec,
    InputError,
    Key,
    Moments,
    Prompt,
    Protocol,
    Row,
    Run,
    Score,
    Subset,
    clip_name,
    columns,
    digest,
    field_differences,
    first_line,
    frame_rate,
    kind_and_first_line,
    masked,
    nearest,
    require_same_protocol,
    shown,
)

FRAMES = np.zeros((4, 6, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "advice"),
    [
        (
            torch.zeros(4, 6, 8, 3),
            "a tensor with .detach().float().cpu().numpy(), and multiply pictures in 0...1 by 255",
        ),
        (torch.zeros(4, 6, 8, 3, dtype=torch.int64), "a tensor with .cpu().numpy(), and convert numbers in 0...255"),
        ([*FRAMES], "put pictures of one size into one array by np.stack"),
        (torch.zeros(4, 6, 8, 3, dtype=torch.uint8), "width, 3]: convert a tensor with .cpu().numpy()"),
        (FRAMES / 255, "a uint8 array [time, height, width, 3]: multiply pictures in 0...1 by 255"),
        (FRAMES / 255, "of -1...1, take (x + 1) / 2"),
        (FRAMES.astype(np.int64), "width, 3]: convert numbers in 0...255 with .astype(np.uint8)"),
    ],
)
def test_frames_of_another_kind_are_refused_with_what_helps(frames, advice):
    with pytest.raises(InputError, match=re.escape(advice)):
        Clip(frames, 8)


WAVE = np.zeros((1, 100), np.float32)


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (8, Fraction(8)),
        (np.int64(8), Fraction(8)),
        ("24000/1001", Fraction(24000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (np.float32(23.976), Fraction(24000, 1001)),
        (torch.tensor(23.976), Fraction(24000, 1001)),
        ("29.97", None),
        (119.88, Fraction(120000, 1001)),
        ("2997/125", Fraction(2997, 125)),  # 23.976, as a fraction exactly what it says
    ],
)
def test_frame_rates_are_exact(given, exact):
    assert frame_rate(given) == (exact or Fraction(30000, 1001))


@pytest.mark.parametrize("given", [0, -1, "x", None, float("nan"), float("inf"), "1/0", 1001, True])
def test_impossible_frame_rates(given):
    with pytest.raises(InputError, match="fps is"):
        frame_rate(given)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (FRAMES.astype(np.float32), r"float32 array.*: multiply pictures in 0\.\.\.1 by 255, round, and convert"),
        (FRAMES[0], "shape"),
        (FRAMES[:0], "not empty"),
        (FRAMES[..., :1], "shape"),
        (FRAMES[..., [0, 1, 2, 0]], "shape"),
        ([[1]], "list"),
    ],
)
def test_wrong_frames(frames, words):
    with pytest.raises(InputError, match=words):
        Clip(frames, Fraction(8))


@pytest.mark.parametrize(
    ("wave", "rate", "words"),
    [
        (WAVE.astype(np.int16), 16000, r"int16 array.*: convert it with \.astype\(np\.float32\) and divide by 32768$"),
        (WAVE.astype(np.int32), 16000, r"with \.astype\(np\.float32\) and divide by 2\*\*31$"),
        (WAVE.astype(np.uint8), 16000, r"with \.astype\(np\.float32\), subtract 128 and divide by 128$"),
        (WAVE.astype(np.float64), 16000, r"with \.astype\(np\.float32\)$"),
        (torch.zeros(1, 100, dtype=torch.int16), 16000, r"\.float\(\)\.cpu\(\)\.numpy\(\) and divide by 32768$"),
        (WAVE[0], 16000, "channels, samples"),
        (WAVE[:, :0], 16000, "at least one"),
        (np.zeros((100, 2), np.float32), 16000, "transpose"),
        (np.array([[0, np.nan, np.inf, -np.inf]], np.float32), 16000, "holds 3 samples that are NaN or infinite"),
        (WAVE - 3, 16000, r"peaks at 3; .* \(scale or clip the model's output\)"),
        (WAVE + 1.5, 16000, r"peaks at 1\.5; .* \(scale or clip the model's output\)"),
        (
            WAVE + 20_000,
            16000,
            r"peaks at 2e\+04; .* \(divide integer samples by their full scale: by 32768 of 16 bits",
        ),
        (WAVE, 16000.5, "whole number of Hz"),
        (WAVE, True, "whole number of Hz"),
        (torch.zeros(1, 100), 16000, r"convert a tensor with \.detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)"),
        ([[0.0]], 16000, r"convert a list with np\.array\(samples, np\.float32\)"),
        (WAVE, 0, "whole number of Hz"),
    ],
)
def test_wrong_sound(wave, rate, words):
    with pytest.raises(InputError, match=words):
        Audio(wave, rate)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_advice_on_tensors_can_be_followed(kind):
    """Also of bfloat16, which numpy does not have, and of tensors with gradients."""
    given = torch.full((4, 6, 8, 3), 0.5, dtype=kind, requires_grad=True)
    with pytest.raises(InputError) as refused:
        Clip(given, 8)
    array = eval("given" + re.search(r"a tensor with (\S+),", str(refused.value))[1])
    assert Clip((array * 255).round().astype(np.uint8), 8).frames.max() == 128


@pytest.mark.parametrize("rate", [np.int64(16000), 16000.0, np.float32(16000), torch.tensor(16000)])
def test_a_whole_number_of_any_type_is_a_sample_rate(rate):
    for kept in (Audio(WAVE, rate).sample_rate, ClipSpec(np.int64(8), 6, 4, 8, rate).sample_rate):
        assert kept == 16000 and type(kept) is int


def test_clips_and_sound_are_shown_by_size_rate_and_length():
    sound = Audio(WAVE, 16000)
    assert repr(sound) == "Audio(1 channel of 100 samples at 16000 Hz, 0.00625 s)"
    assert repr(Clip(FRAMES, 8)) == "Clip(4 frames of 8 × 6 at 8 fps, no sound)"
    assert repr(Clip(FRAMES, "23.976", sound)) == f"Clip(4 frames of 8 × 6 at 24000/1001 fps, {sound})"


def test_a_wrong_argument_is_shown_on_one_short_line():
    assert shown("a\nb") == r"'a\nb'" and shown(None) == "None"
    words = shown(np.zeros((50, 50)))
    assert words.startswith("array([[0., 0., ") and words.endswith("…") and len(words) == 81 and "\n" not in words


def test_a_bare_waveform_is_refused():
    with pytest.raises(InputError, match="carries its sample rate"):
        Clip(FRAMES, Fraction(8), WAVE)


def test_a_clip_cannot_be_changed_but_its_source_can():
    frames = FRAMES.copy()
    clip = Clip(frames, Fraction(8))
    with pytest.raises(ValueError, match="read-only"):
        clip.frames[0] = 1
    frames[0] = 1


def test_clip_spec_says_what_differs():
    spec = ClipSpec(8, 6, 4, Fraction(8), 16000)
    assert spec.samples == ClipSpec(8, 6, 4, 8, 16000, channels=6).samples == 8000
    assert spec.objection(Clip(FRAMES, Fraction(8), Audio(np.zeros((1, 8000), np.float32), 16000))) is None
    assert spec.objection(Clip(FRAMES, Fraction(24))) == "fps 24 where 8 is asked for"
    assert ClipSpec.from_json(spec.to_json()) == spec
    with pytest.raises(InputError, match="field of a clip spec 'colour' is unknown"):
        ClipSpec.from_json({**spec.to_json(), "colour": 1})
    with pytest.raises(InputError, match="sample_rate is 0"):
        ClipSpec(8, 6, 4, 8, 0)


@pytest.mark.parametrize("identifier", ["", "../x", "a/b", "a b", ".hidden", "a..b", "x" * 121, 3])
def test_ids_cannot_leave_the_folder(identifier):
    with pytest.raises(InputError, match="cannot be an id"):
        Prompt(identifier, "caption")


def test_subsets():
    prompts = (Prompt("a", "one"), Prompt("b", "two", "sound", {"scene": {"x": 1}}))
    subset = Subset("s", 1, prompts, ClipSpec(8, 6, 4, Fraction(8)))
    short = subset.limited(1)
    assert short.digest != subset.digest
    assert short.whole_digest == short.limited(1).whole_digest == subset.digest
    assert subset.limited(5) is subset
    with pytest.raises(InputError, match="two prompts with the id 'a'"):
        Subset("s", 1, (prompts[0], prompts[0]), None)


def test_tags_become_what_json_can_hold():
    assert Prompt("a", "one", tags={"at": datetime.time(8, 30)}).tags == {"at": "08:30:00"}
    with pytest.raises(InputError, match="the tag 'n' of prompt 'a' is inf, a float; it must be text, a finite number"):
        Prompt("a", "one", tags={"n": float("inf")})


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_a_subset_takes_prompts_from_anything_that_has_several(kind):
    prompts = (Prompt("a", "one"), Prompt("b", "two"))
    subset = Subset("s", 1, kind(prompts), None)
    assert subset.prompts == prompts and subset == Subset("s", 1, prompts, None)


@pytest.mark.parametrize(
    ("prompts", "spec", "words"),
    [
        ([{"id": "a"}], None, "has {'id': 'a'} among its prompts; each must be a Prompt, as in Prompt("),
        ("abc", None, "has 'a' among its prompts"),
        (None, None, "has None among its prompts"),
        ([], None, "subset 's' has no prompts"),
        ([Prompt("a", "one")], {"width": 8}, "the clip spec of subset 's' is {'width': 8}; it must be a ClipSpec or"),
    ],
)
def test_what_is_no_prompt_or_clip_spec_is_refused(prompts, spec, words):
    with pytest.raises(InputError, match=re.escape(words)):
        Subset("s", 1, prompts, spec)


def test_files_that_are_known_by_hashes_are_named_in_words():
    one, other = "a" * 64, "b" * 64
    ours = {"settings": {"weights": {"model": {"sha256": one, "bytes": 1}}, "files_sha256": {"x.py": one}, "steps": 4}}
    theirs = {"settings": {"weights": {"model": {"sha256": other, "bytes": 2}}, "steps": 5}}
    commits = {"commit": "a" * 40}, {"commit": "b" * 40}
    assert field_differences(*commits) == [f"commit: {'a' * 40!r} against {'b' * 40!r}"]
    assert field_differences({"feature": {"reference_clips": one}}, {"feature": {"reference_clips": other}}) == [
        "the reference clips: other content"
    ]
    assert field_differences({"weights": {"sha256": one, "hashed": "every byte", "files": 2}}, {}) == [
        "the model's files: in one of the two only"
    ]
    assert field_differences(ours, theirs) == [
        "the file x.py: in one of the two only",
        "settings.steps: 4 against 5",
        "the model's files (model): other content",
    ]


def test_unlike_protocols_are_named_by_field():
    ours, theirs = Protocol("i3d", 1).describe(), Protocol("i3d", 2).describe()
    assert field_differences(ours, theirs) == ["version: 1 against 2"]
    assert field_differences(ours, theirs, "{} here, {} there".format) == ["version: 1 here, 2 there"]
    with pytest.raises(InputError, match="version: 1 against 2"):
        require_same_protocol(ours, theirs, "two scores")
    assert Protocol("i3d", 1).digest != Protocol("i3d", 2).digest
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"epsilon": float("nan")})
    with pytest.raises(InputError, match=r"^'cmd:echo \\udcff' cannot be written into results, because it is not"):
        digest({"model": "cmd:echo \udcff"})


def test_columns_do_not_depend_on_the_order_of_rows():
    rows = [Row(Key("s", name, 0), "x", {"v": float(value)}) for value, name in enumerate("cab")]
    keys, stacked = columns(rows)
    assert [key.prompt for key in keys] == ["a", "b", "c"]
    assert stacked["v"].tolist() == [1, 2, 0]
    with pytest.raises(InputError, match="counted once"):
        columns([rows[0], rows[0]])


def test_rows_hold_numbers_or_a_reason():
    with pytest.raises(InputError, match="NaN"):
        Row(Key("s", "p", 0), "x", {"v": float("nan")})
    with pytest.raises(InputError, match="either values or a sentence"):
        Row(Key("s", "p", 0), "x", None)
    assert columns([Row(Key("s", "p", 0), "x", None, "too short")]) == ([], {})
    mixed = [Row(Key("s", "p", seed), "x", {"v": value}) for seed, value in enumerate((1.0, np.zeros(2)))]
    with pytest.raises(InputError, match="v has different numbers of dimensions"):
        columns(mixed)


def test_scores_are_finite_or_absent():
    with pytest.raises(InputError, match="either a value or a sentence"):
        Score("s", "fvd", None, 0, "d")
    with pytest.raises(InputError, match="either a value or a sentence"):
        Score("s", "fvd", 1.0, 3, "d", missing="too few")
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="finite or absent"):
            Score("s", "fvd", value, 3, "d")


def test_moments_merge_in_any_order():
    x = np.random.default_rng(0).normal(5, 2, (50, 6))
    whole = Moments.of(x)
    for cut in (1, 20, 49):
        for merged in (Moments.of(x[:cut]).merge(Moments.of(x[cut:])), Moments.of(x[cut:]).merge(Moments.of(x[:cut]))):
            assert merged.n == 50
            np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
            np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-11)
    with pytest.raises(InputError, match="of 6 and of 1 dimensions cannot be merged"):
        whole.merge(Moments.of(x[:, :1]))
    with pytest.raises(InputError, match="all finite"):
        Moments.of(np.where(x == x.max(), np.inf, x))


def test_what_others_say_is_repeated_without_keys(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a/very+private=value")
    monkeypatch.setenv("db_password", "correct-horse")
    key = "MyOwn/Key+With:Odd=Letters99"
    quoted, coded = urllib.parse.quote(key, safe=""), base64.b64encode(key.encode()).decode()
    for words, secret in (
        (f"401: {key} is wrong", key),
        (f"401: {key.upper()} is wrong", key.upper()),
        (f"no such page: /x?a={quoted}", quoted),
        (f"Authorization: {coded}", coded.rstrip("=")),
        (f"the key that begins with {key[:14]}… is unknown", key[:14]),
        ("the hub: a/very+private=value is not allowed", "a/very+private=value"),
        ("login failed: correct-horse", "correct-horse"),
        ("https://me:hunter2@host/x", "hunter2"),
        ("https://host/x?Api_Key=0123456789abcdef", "0123456789abcdef"),
        ("AIzaSyabcdefghijklmnop is no key", "AIzaSyabcdefghijklmnop"),
        ("https://host/x?signature=0123456789abcdef&part=1", "0123456789abcdef"),
        ("Bearer abcdef0123456789", "abcdef0123456789"),
        ("hf_abcdefghijklmnop cannot read it", "hf_abcdefghijklmnop"),
    ):
        assert secret not in masked(words, key) and "***" in masked(words, key), words
    assert first_line(ValueError("hf_abcdefghijklmnop cannot read it\nmore")) == "*** cannot read it"
    assert first_line(ValueError("...\n a sequence. \nmore")) == "a sequence", "the sentence around it has a full stop"
    assert kind_and_first_line(RuntimeError("out of\nmemory")) == "RuntimeError: out of"
    assert kind_and_first_line(MemoryError()) == "MemoryError"
    plain = "the basic requirement: MyOwn files, 12 of 20, part=1, are not a bearer of anything"
    assert masked(plain, key) == plain


def test_a_clip_is_called_by_its_prompt_and_by_its_seed_where_there_are_several():
    assert clip_name(Key("s", "c3", 0), [0]) == "c3"
    assert clip_name(Key("s", "c3", 0), [0, 1]) == "c3-0" and clip_name(Key("s", "c3", 1), [1]) == "c3-1"


def test_a_run_is_the_same_from_other_paths_only_by_the_hashes_of_its_files():
    def made(model, folder, **settings):
        return Run("r", model.format(folder), settings, {}, (2, 0, 1), {}, {})

    def alike(model, settings):
        one, other = (made(model, folder, **settings(folder)) for folder in ("/here", "/there"))
        return one.spelled_as(other) == other

    sha256, other = 64 * "a", {"/here": 64 * "a", "/there": 64 * "b"}
    assert alike("wan:{}/mine", lambda _: {"weights": {"sha256": sha256}})
    assert alike("wan:{}/mine", lambda _: {"weights": {"model": {"sha256": sha256}}})
    assert not alike("wan:{}/mine", lambda _: {"weights": {}}) and not alike("wan:{}/mine", lambda _: {})
    assert not alike("wan:{}/mine", lambda folder: {"weights": {"sha256": other[folder]}})
    script, picture = "{}/x.py".format, "{}/a.png".format
    assert alike(
        "cmd:python {}/x.py", lambda folder: {"command": [script(folder)], "files_sha256": {script(folder): sha256}}
    )
    assert not alike("cmd:python {}/x.py", lambda folder: {"command": [script(folder)], "files_sha256": {}})
    inputs = {"sha256": sha256, "bytes": 1}
    assert alike("wan:mine", lambda folder: {"image": picture(folder), "inputs": {picture(folder): inputs}})
    assert made("wan:mine", "").to_json()["seeds"] == [2, 0, 1], "in the order in which they were asked for"


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("vido", ("video", "audio"), "did you mean 'video'? choices: audio, video"),
        ("VIDEO", ("video", "audio"), "did you mean 'video'? choices: audio, video"),
        ("x", (), "choices: none"),
        ("wan-ai", ("WAN-AI", "LTX"), "did you mean 'WAN-AI'? choices: LTX, WAN-AI"),
        ("vidoe", ("video_1", "video"), "did you mean 'video'? choices: video, video_1"),
        (
            "frame_9",
            [f"frame_{number}" for number in range(9, 99)],
            "did you mean 'frame_9', 'frame_98', 'frame_97' or 'frame_96'? there are 90 choices",
        ),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_the_list(name, choices, message):
    assert nearest(name, choices) == message


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("FVD", "did you mean 'fvd' or 'kvd'? "),
        ("clap", "did you mean 'fad_of_clap'? "),
        ("fd", "did you mean 'fvd'? "),
        ("xyzzy", ""),
    ],
)
def test_where_choices_are_many_the_command_that_lists_them_is_named(name, guess):
    choices = ("fvd", "kvd", "fad_of_clap")
    assert nearest(name, choices, "`avbench list metrics`") == f"{guess}`avbench list metrics` lists all 3"
