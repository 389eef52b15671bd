"""Makes training clips once, and reads them many times.

A folder holds ``video.npy`` ``[n, time, height, width, 3]`` uint8, ``audio.npy`` ``[n, channels, time]`` float16 as the
audio codec encodes it, ``captions.jsonl`` with one line per example, and ``card.json``. The lines are written in order
and each after its arrays, so training can begin while later examples are still being made. Examples of a user's clips
have a ``clips.json`` as well, the hashes and captions of these.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avbench.avfulldit.text import CaptionEncoder
from avbench.core import InputError, counted, first_line
from avbench.storage.reading import parsed, read_json

CARD, CAPTIONS, CLIPS = "card.json", "captions.jsonl", "clips.json"
_CHUNK = 4096
"""Examples that are copied to a device at a time."""
_MOST_OF_MEMORY = 0.5
"""Of a GPU's free memory that the examples may take; a training needs the rest."""
_PATIENCE_SECONDS = 300
"""How long training waits for the next example before it gives up."""


class Batch(NamedTuple):
    """Examples of one step, on the device that trains."""

    rows: np.ndarray
    """Which examples they are."""
    video: Tensor | None
    """Frames as uint8, or latents."""
    audio: Tensor | None
    """Latents."""
    video_captions: Tensor | Sequence[str]
    """The words' ids ``[batch, length]``, or, where a pretrained encoder reads them, sentences."""
    audio_captions: Tensor | Sequence[str]


@dataclass(frozen=True)
class _Captions:
    """A line of captions.jsonl."""

    video: str
    audio: str


@dataclass
class Examples:
    """Arrays on disk, mapped into memory, and the captions that were written so far."""

    folder: Path
    video: np.ndarray
    audio: np.ndarray
    card: Mapping[str, Any]
    captions: list[dict[str, str]] = field(default_factory=list)
    _read: int = 0
    _resident: dict[str, Tensor] = field(default_factory=dict)
    _uploaded: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "Examples":
        """Open a folder. Raises InputError where a file is missing or their lengths differ."""
        try:
            card = read_json(folder / CARD, dict)
            video, audio = (np.load(folder / name, mmap_mode="r") for name in ("video.npy", "audio.npy"))
        except (OSError, ValueError, EOFError) as error:
            msg = f"{folder} holds no training examples: {error}"
            raise InputError(msg) from None
        for what, array in (("video.npy", video), ("audio.npy", audio)):
            if len(array) != (clips := card.get("clips")):
                msg = f"{folder}: {what} holds {counted(len(array), 'example')}, {CARD} says {clips}"
                raise InputError(msg)
        return cls(folder, video, audio, card)

    def __len__(self) -> int:
        return len(self.video)

    def made(self) -> int:
        """How many examples exist by now."""
        self._look()
        return len(self.captions)

    def wait_for(self, count: int) -> None:
        """Wait until `count` examples exist. Raises InputError if none is added for five minutes."""
        if count > len(self):
            msg = f"{self.folder} will hold {counted(len(self), 'example')}; {count} were asked for"
            raise InputError(msg)
        grew = time.monotonic()
        while len(self.captions) < count:
            before = len(self.captions)
            self._look()
            if len(self.captions) > before:
                grew = time.monotonic()
            elif time.monotonic() - grew > _PATIENCE_SECONDS:
                msg = f"{self.folder} holds {counted(before, 'example')} and no more are being made; {count} are needed"
                raise InputError(msg)
            else:
                time.sleep(0.2)

    def fitting(self, kinds: Iterable[str], device: torch.device) -> set[str]:
        """Those of ``video`` and ``audio`` whose examples a GPU's memory holds together, beside a training."""
        if device.type != "cuda":
            return set()
        kept = {*self._resident} & {*kinds}
        left = _MOST_OF_MEMORY * torch.cuda.mem_get_info(device)[0]
        for size, what in sorted((getattr(self, one).nbytes, one) for one in {*kinds} - kept):
            left -= size
            if left >= 0:
                kept.add(what)
        return kept

    def resident(self, what: str, device: torch.device) -> Tensor:
        """Return all examples of ``video`` or ``audio`` so far, in the device's memory, where they stay for later
        trainings.
        """
        array = getattr(self, what)
        if what not in self._resident:
            dtype = torch.from_numpy(array[:0].copy()).dtype
            self._resident[what] = torch.empty(array.shape, dtype=dtype, device=device)
        for start in range(self._uploaded.get(what, 0), len(self.captions), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(self.captions)))
            self._resident[what][rows] = torch.from_numpy(np.array(array[rows])).to(device)
        self._uploaded[what] = len(self.captions)
        return self._resident[what]

    def _look(self) -> None:
        """Read the captions that were added since the last look; a line that is not yet whole is left for the next."""
        path = self.folder / CAPTIONS
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for number, line in enumerate(whole.splitlines(), start=len(self.captions) + 1):
            self.captions.append(asdict(parsed(line, f"{path}, line {number}", _Captions)))


@contextlib.contextmanager
def example_file(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], *, begun: bool
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Make a ``.npy`` file of all examples, or open the one that was begun; yields what writes one at its place.

    The file is not written as a map: a mapped page for which the disk has no space ends the process without an error.

    Raises:
        InputError: the file that was begun is missing, or has lost its end.
        OSError: an example cannot be written, for example because the disk is full; its filename is `path`.
    """
    if begun:
        _require_whole(path, shape)
    whole = np.lib.format.open_memmap(path, mode="r+" if begun else "w+", dtype=dtype, shape=shape)
    start, size = whole.offset, whole[:1].nbytes
    del whole
    with path.open("r+b", buffering=0) as file:

        def write(number: int, example: np.ndarray) -> None:
            content = example.astype(dtype).tobytes()
            try:
                file.seek(start + number * size)
                while content:
                    content = content[file.write(content) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error

        yield write


def _require_whole(path: Path, shape: tuple[int, ...]) -> None:
    """Raise InputError unless the file holds all its examples: numpy fills up a shorter one with zeros when it opens
    it for writing.
    """
    try:
        there = np.load(path, mmap_mode="r").shape
        why = "" if there == shape else f"its shape is {there} instead of {shape}"
    except (OSError, ValueError, EOFError) as error:
        why = first_line(error)
    if why:
        msg = f"{path} is not what was begun ({why}); remove {path.parent / CAPTIONS} to make its examples again"
        raise InputError(msg)


class Feed:
    """Batches of examples on a device: drawn with replacement from those that training has reached.

    A GPU keeps every example in its memory, if that suffices, because a training looks at each one many times.
    """

    def __init__(
        self,
        examples: Examples,
        device: torch.device,
        video_text: CaptionEncoder | None,
        audio_text: CaptionEncoder | None,
    ) -> None:
        self._examples, self._device = examples, device
        texts = {"video": video_text, "audio": audio_text}
        self._texts = {what: text for what, text in texts.items() if text is not None}
        self._ids = {
            what: torch.zeros(len(examples), text.length, dtype=torch.int64, device=device)
            for what, text in self._texts.items()
        }
        self._kept = examples.fitting(self._texts, device)
        self._there = 0

    def __call__(self, rows: np.ndarray) -> Batch:
        """The examples `rows`."""
        self._read_captions(int(rows.max()) + 1)
        at = sent(torch.from_numpy(rows), self._device)
        arrays: dict[str, Tensor | None] = {"video": None, "audio": None}
        for what in self._texts:
            if what in self._kept:
                arrays[what] = self._examples.resident(what, self._device)[at]
            else:
                arrays[what] = sent(torch.from_numpy(getattr(self._examples, what)[rows]), self._device)
        ids = {what: self._ids[what][at] if what in self._ids else () for what in arrays}
        return Batch(rows, arrays["video"], arrays["audio"], ids["video"], ids["audio"])

    def _read_captions(self, count: int) -> None:
        """Read the captions up to `count`, and all later ones that exist."""
        if count <= self._there:
            return
        self._examples.wait_for(count)
        new = slice(self._there, len(self._examples.captions))
        for what, text in self._texts.items():
            self._ids[what][new] = text.ids([line[what] for line in self._examples.captions[new]]).to(self._device)
        self._there = new.stop


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor to a device without waiting for what the device is doing."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
