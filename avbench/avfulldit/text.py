"""Encodes captions for a small tower: words of a fixed vocabulary, through two transformer layers.

It needs no download. It is trained with its tower, and frozen when towers are joined, as the paper's encoders are.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from avbench.avfulldit.tower import Text

_PADDING, _NOTHING, _UNKNOWN = 0, 1, 2
"""Ids before those of the vocabulary; an empty caption is the one word "nothing"."""
_WORD = re.compile(r"[a-z0-9']+")


def words_of(caption: str) -> list[str]:
    """Split a text into lower-case words, in order, at punctuation and hyphens."""
    return _WORD.findall(caption.lower())


def vocabulary(captions: Iterable[str]) -> list[str]:
    """Every word of the captions, sorted."""
    return sorted({word for caption in captions for word in words_of(caption)})


class CaptionEncoder(nn.Module):
    """Captions → `Text`. Words beyond `length` are cut; words outside the vocabulary share one embedding."""

    empty: Tensor
    """Ids of the caption without words, ``[1, length]``."""

    def __init__(self, words: Sequence[str], width: int, length: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.words, self.length, self.width = tuple(words), length, width
        self._ids = {word: number for number, word in enumerate(words, _UNKNOWN + 1)}
        self.embedding = nn.Embedding(len(words) + _UNKNOWN + 1, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.register_buffer("empty", self.ids([""]), persistent=False)

    def unknown(self, caption: str) -> list[str]:
        """The caption's words that are not in the vocabulary."""
        return [word for word in words_of(caption) if word not in self._ids]

    def cuts(self, caption: str) -> bool:
        """Whether the end of a caption is not read."""
        return len(words_of(caption)) > self.length

    def ids(self, captions: Sequence[str]) -> Tensor:
        """``[captions, length]`` int64, padded with 0."""
        out = np.full((len(captions), self.length), _PADDING)
        for row, caption in zip(out, captions, strict=True):
            found = [self._ids.get(word, _UNKNOWN) for word in words_of(caption)][: self.length] or [_NOTHING]
            row[: len(found)] = found
        return torch.from_numpy(out)

    def read(self, captions: Sequence[str]) -> Text:
        """Captions → `Text`, on the encoder's device."""
        return self(self.ids(captions).to(self.position.device))

    def forward(self, ids: Tensor) -> Text:
        """Ids ``[batch, length]`` → `Text`."""
        mask = ids != _PADDING
        states = self.embedding(ids) + self.position
        bias = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, float("-inf"))
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=bias)
        return Text(self.norm(states), mask)
