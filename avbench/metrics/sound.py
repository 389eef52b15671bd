"""Measures the sound: how loud it is, how much of its speech is right, and whether it fits picture and caption."""

import functools

import numpy as np

from avbench.core import Columns, NotMeasurable


def loudness(columns: Columns) -> np.ndarray:
    """Integrated loudness, ``[clips]`` in LUFS. NaN where it is undefined, for example for a silent track."""
    return np.where(columns["loudness_known"] > 0, columns["loudness"], np.nan)


def _excess(columns: Columns, own: str, other: str, what: str) -> np.ndarray:
    """`similarity` less its chance level: the mean cosine of a clip's vector `own` with other clips' vectors `other`.

    Raises:
        NotMeasurable: all clips have one vector `other`; `what` says of what.
    """
    distinct, place = np.unique(np.asarray(columns[other], dtype=np.float64), axis=0, return_inverse=True)
    if len(distinct) < 2:
        msg = f"all clips have the same {what}; chance is measured with the {what}s of other clips"
        raise NotMeasurable(msg)
    others = (distinct.sum(axis=0) - distinct[place.ravel()]) / (len(distinct) - 1)
    chance = np.einsum("nd,nd->n", np.asarray(columns[own], dtype=np.float64), others)
    return np.asarray(columns["similarity"], dtype=np.float64) - chance


# Similarities less their chance level, ``[clips]``; each raises NotMeasurable as `_excess` does.
excess_over_captions = functools.partial(_excess, own="sound", other="text", what="audio caption")
"""Of sound and audio caption, with CLAP's names of the two vectors."""
excess_over_audio_captions = functools.partial(_excess, own="one", other="other", what="audio caption")
"""Of sound and audio caption."""
excess_over_video_captions = functools.partial(_excess, own="one", other="other", what="video caption")
"""Of picture and video caption."""
excess_over_sounds = functools.partial(_excess, own="one", other="other", what="sound")
"""Of picture and sound."""


def wer(columns: Columns) -> np.ndarray:
    """Word error rate: the words that Whisper hears wrong, over those of the prompt's speech, ``[clips]``."""
    return np.asarray(columns["errors"], dtype=np.float64) / columns["words"]
