"""What people piece together without avbench, for the column of peers in benchmarks/speed.py.

Decoding is PyAV's of every frame to RGB; FVD's features are cd-fvd's I3D of the first 16 frames with its own
preprocessing; LPIPS is the `lpips` package's, pair by pair; flow is OpenCV's DIS (medium) between the frames as they
are, with the warping error along it. Weights are random, because they change no cost, so no value of a network is
compared. 16 frames of a clip are torchcodec's, opened and searched anew each time.
"""

import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from avbench.core import Clip
from avbench.storage.media import read_clip


def looks(
    spread: Callable[[int], np.ndarray],
) -> dict[str, tuple[Callable[[Path], Any], Callable[[Any], dict[str, Any]]]]:
    """Feature of avbench → what makes its input of a file, which is not timed, and the peer's computation.

    `spread` gives the numbers of the frames of ``16-frames``.
    """
    preprocess, logits = _cd_fvd()
    return {
        "decode": (Path, _decode),
        "16-frames": (Path, _torchcodec(spread)),
        "i3d-resize": (read_clip, preprocess),
        "i3d-k400": (read_clip, logits),
        "lpips-alex": (read_clip, _lpips()),
        "flow-dis": (read_clip, _flow),
    }


def _decode(file: Path) -> dict[str, float]:
    """Every frame as RGB."""
    with av.open(str(file)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return {"frames": len([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])}


def _torchcodec(spread: Callable[[int], np.ndarray]) -> Callable[[Path], dict[str, Any]]:
    def look(file: Path) -> dict[str, Any]:
        from torchcodec.decoders import VideoDecoder  # type: ignore[import-not-found]

        decoder = VideoDecoder(str(file), dimension_order="NHWC", num_ffmpeg_threads=1)
        return {"frames": decoder.get_frames_at(spread(len(decoder)).tolist()).data.numpy()}

    return look


def _cd_fvd() -> tuple[Callable[[Clip], dict[str, Any]], Callable[[Clip], dict[str, Any]]]:
    """Its preprocessing alone, and with its network."""
    package = importlib.util.find_spec("cdfvd")
    if package is None or package.origin is None:
        msg = "cd-fvd is not installed; run `pip install cd-fvd`"
        raise SystemExit(msg)
    # Its network alone: the whole package needs a torchvision that still reads videos.
    sys.path.insert(0, str(Path(package.origin).parent / "third_party"))
    from i3d import pytorch_i3d, utils  # type: ignore[import-not-found]

    network = pytorch_i3d.InceptionI3d(400, in_channels=3).eval()

    def preprocess(clip: Clip) -> dict[str, Any]:
        return {"input": utils.preprocess_i3d(clip.frames[None, :16])}

    def logits(clip: Clip) -> dict[str, Any]:
        with torch.no_grad():
            return {"logits": network(preprocess(clip)["input"]).numpy()}

    return preprocess, logits


def _lpips() -> Callable[[Clip], dict[str, Any]]:
    import lpips

    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()

    def look(clip: Clip) -> dict[str, Any]:
        images = (torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1 for frame in clip.frames)
        with torch.no_grad():
            return {"per_pair": np.array([network(one, two).item() for one, two in itertools.pairwise(images)])}

    return look


def _flow(clip: Clip) -> dict[str, Any]:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = clip.height, clip.width
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    errors = []
    for one, two in itertools.pairwise(clip.frames):
        before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (one, two))
        flow = dis.calc(before, after, None)  # type: ignore[call-overload]
        warped = cv2.remap(two, grid + flow, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
        errors.append(float(((warped.astype(np.float32) - one) ** 2).mean()))
    return {"warping_error": np.array(errors)}
