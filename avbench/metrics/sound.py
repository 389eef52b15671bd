"""Measures the sound: how often sounds begin, how loud and pleasant they are, and whether they fit their caption."""

import numpy as np

from avbench.core import Columns, NotMeasurable


def onset_rate(columns: Columns) -> np.ndarray:
    """Onsets per second of sound, ``[clips]``. A silent track has 0; a clip without a track has no row."""
    return np.asarray(columns["onset_rate"], dtype=np.float64)


def loudness(columns: Columns) -> np.ndarray:
    """Integrated loudness, ``[clips]`` in LUFS. NaN for a silent track, whose loudness is undefined."""
    return np.where(columns["silent"] > 0, np.nan, columns["loudness"])


def silence(columns: Columns) -> np.ndarray:
    """Share of the sound below -60 dBFS, ``[clips]``. A silent track has 1."""
    return np.asarray(columns["silent_share"], dtype=np.float64)


def clipping(columns: Columns) -> np.ndarray:
    """Share of the samples that are cut off at full scale, ``[clips]``."""
    return np.asarray(columns["clipped_share"], dtype=np.float64)


def clap_text_audio(columns: Columns) -> np.ndarray:
    """Cosine of CLAP's vectors of the sound and its caption, ``[clips]``."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def clap_text_audio_excess(columns: Columns) -> np.ndarray:
    """`clap_text_audio` less the mean cosine of the sound with the other captions of the clips, ``[clips]``.

    Raises NotMeasurable if all clips have one caption.
    """
    return _excess(columns, "sound", "text", "audio caption")


def ms_clap_text_audio(columns: Columns) -> np.ndarray:
    """Cosine of MS-CLAP's vectors of the sound and its caption, ``[clips]``."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def ms_clap_text_audio_excess(columns: Columns) -> np.ndarray:
    """`ms_clap_text_audio` less the mean cosine of the sound with the other captions of the clips, ``[clips]``.

    Raises NotMeasurable if all clips have one caption.
    """
    return _excess(columns, "sound", "text", "audio caption")


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


def pe_av(columns: Columns) -> np.ndarray:
    """Cosine of PE-AV's vectors of frames and sound, ``[clips]``."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def pe_av_excess(columns: Columns) -> np.ndarray:
    """`pe_av` less the mean cosine of the frames with the sounds of the other clips, ``[clips]``.

    Raises NotMeasurable if all clips have one sound.
    """
    return _excess(columns, "one", "other", "sound")


def pe_text_video(columns: Columns) -> np.ndarray:
    """Cosine of PE-AV's vectors of frames and video caption, ``[clips]``."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def pe_text_video_excess(columns: Columns) -> np.ndarray:
    """`pe_text_video` less the mean cosine of the frames with the other video captions, ``[clips]``.

    Raises NotMeasurable if all clips have one caption.
    """
    return _excess(columns, "one", "other", "video caption")


def pe_text_audio(columns: Columns) -> np.ndarray:
    """Cosine of PE-AV's vectors of sound and audio caption, ``[clips]``."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def pe_text_audio_excess(columns: Columns) -> np.ndarray:
    """`pe_text_audio` less the mean cosine of the sound with the other audio captions, ``[clips]``.

    Raises NotMeasurable if all clips have one caption.
    """
    return _excess(columns, "one", "other", "audio caption")


def imagebind(columns: Columns) -> np.ndarray:
    """Cosine of ImageBind's vectors of frames and sound, ``[clips]``."""
    return np.asarray(columns["similarity"], dtype=np.float64)


def imagebind_excess(columns: Columns) -> np.ndarray:
    """`imagebind` less the mean cosine of the frames with the sounds of the other clips, ``[clips]``.

    Raises NotMeasurable if all clips have one sound.
    """
    return _excess(columns, "one", "other", "sound")


def audiobox_enjoyment(columns: Columns) -> np.ndarray:
    """Audiobox-Aesthetics' content enjoyment (CE), ``[clips]``."""
    return np.asarray(columns["enjoyment"], dtype=np.float64)


def audiobox_usefulness(columns: Columns) -> np.ndarray:
    """Audiobox-Aesthetics' content usefulness (CU), ``[clips]``."""
    return np.asarray(columns["usefulness"], dtype=np.float64)


def audiobox_complexity(columns: Columns) -> np.ndarray:
    """Audiobox-Aesthetics' production complexity (PC), ``[clips]``."""
    return np.asarray(columns["complexity"], dtype=np.float64)


def audiobox_quality(columns: Columns) -> np.ndarray:
    """Audiobox-Aesthetics' production quality (PQ), ``[clips]``."""
    return np.asarray(columns["quality"], dtype=np.float64)


def wer(columns: Columns) -> np.ndarray:
    """Word error rate: the words that Whisper hears wrong, over those of the prompt's speech, ``[clips]``."""
    return np.asarray(columns["errors"], dtype=np.float64) / columns["words"]
