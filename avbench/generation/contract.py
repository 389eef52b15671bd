"""Checks a generator's contract: its clips depend only on prompt, seed and settings, and meet the clip spec.

Seven clips are made: three (of two prompts and two seeds) one by one, and by a newly built generator the first of them
again, then all three in reverse order and in batches. The decoded clips must be exactly equal.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from avbench.core import Clip, InputError, Key, NotMeasurable, Subset, counted, digest, kind_and_first_line, one_line
from avbench.generation.first_clips import nothing_in
from avbench.generation.sample import plan
from avbench.generation.table import Generator, Request, made_by, ready
from avbench.storage.media.conform import ClipForm, in_form


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool | None
    """None if the check does not apply."""
    words: str

    @property
    def mark(self) -> str:
        """The result as text."""
        return {True: "ok", False: "failed", None: "not applicable"}[self.ok]


def check(build: Callable[[], Generator], subset: Subset) -> Iterator[Check]:
    """Run all checks on a generator, and stop after the first failure that leaves no clips to check."""
    try:
        generator = ready(build)
    except Exception as error:
        yield Check("settings", False, f"it cannot be built: {_sentence(error)}")
        return
    try:
        digest(generator.settings)
    except Exception as error:
        yield Check("settings", False, f"its settings are not plain values: {_sentence(error)}")
        return
    yield Check("settings", True, f"{counted(len(generator.settings), 'setting')}, all plain values")
    first, *others = subset.prompts
    asked = {request.key: request for request in plan([subset], [0, 1])}
    prompts = [(first, 0), (first, 1), *[(prompt, 0) for prompt in others[:1]]]
    requests = [asked[Key(subset.name, prompt.id, seed)] for prompt, seed in prompts]
    made = [_clip(generator, [request])[0] for request in requests]
    del generator  # two generators may not fit into memory
    if wrong := [one for one in made if isinstance(one, str)]:
        yield Check("clips", False, f"{len(wrong)} of {len(made)} clips could not be made: {wrong[0]}")
        return
    clips = [one for one in made if isinstance(one, Clip)]
    forms = ", ".join(dict.fromkeys(_form(clip) for clip in clips))
    yield Check("clips", True, f"{counted(len(clips), 'clip')}: {forms}")
    yield _spec(subset, clips)
    yield _picture(clips)
    yield _sound(clips)
    yield from _repeated(build, requests, clips)
    same = _difference(clips[0], clips[1]) is None
    yield Check("seeds", not same, "another seed gives the same clip" if same else "another seed gives another clip")
    if len(clips) < 3:
        yield Check("prompts", None, "there is one prompt only")
        return
    same = _difference(clips[0], clips[2]) is None
    words = "another prompt gives the same clip" if same else "another prompt gives another clip"
    yield Check("prompts", not same, words)


def _repeated(build: Callable[[], Generator], requests: Sequence[Request], clips: Sequence[Clip]) -> Iterator[Check]:
    """Make the same clips with a new generator: the first one alone, then all in reverse order, in batches."""
    try:
        generator = ready(build)
    except Exception as error:
        yield Check("again", False, f"it cannot be built a second time: {_sentence(error)}")
        yield Check("order", None, "not checked, because there is no second model")
        return
    (again,) = _clip(generator, requests[:1])
    difference = again if isinstance(again, str) else _difference(clips[0], again)
    yield Check("again", difference is None, difference or "the same prompt and seed give the same clip")
    if difference is not None:
        yield Check("order", None, "not checked, because the same request gives different clips")
        return
    size = max(1, getattr(generator, "batch_size", 1))
    backwards, together = requests[::-1], []
    for start in range(0, len(backwards), size):
        together += _clip(generator, backwards[start : start + size])
    difference = None
    for clip, other in zip(clips[::-1], together, strict=True):
        difference = difference or (other if isinstance(other, str) else _difference(clip, other))
    how = "in reverse order" + (f" and in batches of {min(size, len(requests))}" if size > 1 else "")
    yield Check("order", difference is None, f"{how}, {difference or 'the clips are the same'}")


def _clip(generator: Generator, requests: Sequence[Request]) -> list[Clip | str]:
    """Return for each request a clip, or a sentence why there is none."""
    try:
        return [_sentence(one) if isinstance(one, Exception) else one.read() for one in made_by(generator, requests)]
    except Exception as error:
        return [_sentence(error)] * len(requests)


def _sentence(error: Exception) -> str:
    return one_line(error) if isinstance(error, InputError) else kind_and_first_line(error)


def _form(clip: Clip) -> str:
    audio = clip.audio
    sound = f"{audio.channels} × {audio.samples} samples at {audio.sample_rate} Hz" if audio else "no sound"
    return f"{counted(len(clip.frames), 'frame')} of {clip.width}×{clip.height} at {clip.fps} fps, {sound}"


def _picture(clips: Sequence[Clip]) -> Check:
    if empty := [words for clip in clips if (words := nothing_in(clip))]:
        return Check("picture", False, f"{len(empty)} of {len(clips)} clips are empty: {empty[0]}")
    still = sum(len(clip.frames) > 1 and bool((clip.frames == clip.frames[0, 0, 0]).all()) for clip in clips)
    return Check(
        "picture", not still, f"{counted(still, 'clip')} of one colour throughout" if still else "no clip is one colour"
    )


def _spec(subset: Subset, clips: Sequence[Clip]) -> Check:
    if subset.clip_spec is None:
        return Check("form", None, f"{subset.name} has no clip spec")
    objections = [words for clip in clips if (words := subset.clip_spec.objection(clip))]
    if not objections:
        return Check("form", True, f"meets the clip spec of {subset.name}")
    try:
        for clip in clips:
            in_form(clip, ClipForm.of(subset.clip_spec))
    except NotMeasurable as short:
        return Check("form", False, str(short))
    return Check("form", True, f"{objections[0]}; conformed to the clip spec of {subset.name} when measured")


def _sound(clips: Sequence[Clip]) -> Check:
    sounds = [(clip, clip.audio) for clip in clips if clip.audio is not None]
    if not sounds:
        return Check("sound", None, "the clips have no sound")
    if len(sounds) < len(clips):
        return Check("sound", False, f"{len(clips) - len(sounds)} of {len(clips)} clips have no sound")
    apart = max(abs(audio.seconds - clip.seconds) * float(clip.fps) for clip, audio in sounds)
    if apart > 1:
        return Check("sound", False, f"sound and frames end {apart:.1f} frames apart")
    silent = sum(not audio.waveform.any() for _, audio in sounds)
    if silent == len(sounds):
        return Check("sound", False, "every sample of every clip is 0")
    return Check(
        "sound", True, f"as long as the frames, to {apart:.2f} frames" + (f"; {silent} silent" if silent else "")
    )


def _difference(one: Clip, other: Clip) -> str | None:
    """Describe how two clips differ; None if they are equal."""
    if _form(one) != _form(other):
        return f"the clips have different forms: {_form(one)}; {_form(other)}"
    apart = np.abs(one.frames.astype(np.int16) - other.frames)
    if apart.any():
        frames = int(apart.any(axis=(1, 2, 3)).sum())
        return f"the clips differ: {frames} of {len(apart)} frames, by up to {apart.max()} of 255"
    if one.audio is not None and other.audio is not None:
        apart = np.abs(one.audio.waveform - other.audio.waveform)
        if apart.any():
            return f"the clips' sounds differ by up to {apart.max():.2g}"
    return None
