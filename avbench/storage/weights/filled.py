"""Checks that every parameter of a network gets a value from its files, and that every tensor in the files is used.

Loaders only warn about missing or unknown tensors, or do not report them: transformers fills missing ones with random
numbers. So the names in the files are compared with the names in the network. Some loaders rename tensors (transformers
does for some text encoders); then a parameter and a tensor are matched by their first numbers.
"""

import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from avbench.core import InputError, counted, first_line, listed
from avbench.storage.reading import tensor_header

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SAFE = ".safetensors"
_HEAD = 64
"""Numbers by which a renamed tensor is found."""
_COUNTERS = ("num_batches_tracked", "position_ids")
"""Buffers without influence, or that the network makes itself; older files lack them."""
_SHOWN = 3


def variant_of(folder: Path, *, pickles: bool = False) -> str | None:
    """Like `variant_among`, of the files in a part's folder, in the form of diffusers or transformers."""
    names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    return variant_among(names, str(folder), pickles=pickles)


def variant_among(names: Iterable[str], where: str, *, pickles: bool = False) -> str | None:
    """The word that the names of all weights have, such as ``fp16`` in ``model.fp16.safetensors``.

    Args:
        names: of the files of one part of a pipeline.
        where: they are, for errors.
        pickles: whether pickles count as well.

    Returns:
        The word; None if there are weights without one, or no weights.

    Raises:
        InputError: there are only weights with such words, and not the same one.
    """
    stems, kinds = "|".join(_STEMS), "safetensors|bin" if pickles else "safetensors"
    pattern = re.compile(rf"(?:{stems})(?:\.(\w+))?\.(?:{kinds})|(?:{stems})\.(?:{kinds})\.index(?:\.(\w+))?\.json")
    variants = {found[1] or found[2] for name in names if (found := pattern.fullmatch(name))}
    if None in variants or not variants:
        return None
    if len(variants) > 1:
        msg = f"{where} holds weights in several variants ({', '.join(sorted(variants))}): remove all but one"
        raise InputError(msg)
    return variants.pop()


def check_filled(network: nn.Module, folder: Path, what: str, variant: str | None = None) -> None:
    """Compare a network with the weight files of the folder that it was read from; other files are not compared.

    Args:
        network: the network as it was loaded.
        folder: the network's folder, in the form of diffusers or transformers.
        what: the network's name for people, for example ``the text_encoder (UMT5EncoderModel)``.
        variant: word in the names of the files that were read, where the folder has such files (see `variant_of`).

    Raises:
        InputError: a parameter has no value from a file, a tensor has no place, or the folder holds two sets of
            weights.
    """
    if files := (_files(folder, f".{variant}") if variant else []) or _files(folder):
        _require_real(network, files, what)
        stored = [_Stored(name, file) for file in files for name in _names(file)]
        _check(network, stored, what, ", ".join(sorted(file.name for file in files)[:_SHOWN]) + f" of {folder}")


def _require_real(network: nn.Module, files: Iterable[Path], what: str) -> None:
    """Raise InputError if a file holds whole numbers where the network computes with real ones."""
    held = network.state_dict()
    whole = [
        f"{name} ({one['dtype']})"
        for file in files
        if file.suffix == _SAFE
        for name, one in tensor_header(file).items()
        if name in held and held[name].is_floating_point() and not str(one["dtype"]).startswith(("F", "BF"))
    ]
    refuse_whole_numbers(what, whole)


def refuse_whole_numbers(where: str, names: Sequence[str]) -> None:
    """Raise InputError if there are names of weights that are whole numbers without a scale."""
    if names:
        msg = f"{where} holds {len(names)} weights of whole numbers without a scale, which would be noise: "
        raise InputError(msg + listed(sorted(names)))


def check_files(folder: Path) -> None:
    """Read the configs and the headers of the weights of a part's folder; no weight is read.

    Raises:
        InputError: there is no such folder, a config is no object, or a file of weights is damaged or cut short.
    """
    if not folder.is_dir():
        msg = f"{folder}: there is no such folder; copy the pipeline whole, as save_pretrained writes it"
        raise InputError(msg)
    for config in sorted(folder.glob("*config.json")):
        try:  # not read_json: a tokenizer's may hold a number of more than 64 bits
            is_object = isinstance(json.loads(config.read_text(encoding="utf-8")), dict)
        except (OSError, ValueError):
            is_object = False
        if not is_object:
            msg = f"{config} is no JSON object"
            raise InputError(msg)
    for file in sorted(folder.glob(f"*{_SAFE}")):
        tensor_header(file)


def load_reason(error: Exception) -> str:
    """The first line of a loader's error; without diffusers' advice to ignore a shape that does not fit."""
    if found := re.search(r"(\S+) expected shape torch\.Size\((.*?)\), but got torch\.Size\((.*?)\)", str(error)):
        return f"its config does not fit its weights: {found[1]} is {found[3]} in the file and {found[2]} by the config"
    return first_line(error)


def check_names(network: nn.Module, names: Iterable[str], what: str, where: str) -> None:
    """Like `check_filled`, but compares only names: those of a file's tensors after translation to the network's
    names.
    """
    _check(network, [_Stored(name, None) for name in names], what, where)


@dataclass(frozen=True)
class _Stored:
    """A tensor of a file."""

    name: str
    file: Path | None

    def size(self) -> int:
        assert self.file is not None
        with safe_open(self.file, "pt") as file:
            return math.prod(file.get_slice(self.name).get_shape())

    def head(self, dtype: torch.dtype) -> bytes:
        assert self.file is not None
        with safe_open(self.file, "pt") as file:
            part = file.get_slice(self.name)
            shape = part.get_shape()
            return _head(part[: _rows(shape)] if shape else file.get_tensor(self.name), dtype)


def _check(network: nn.Module, stored: list[_Stored], what: str, where: str) -> None:
    held = {name: one for name, one in network.state_dict(keep_vars=True).items() if isinstance(one, Tensor)}
    names = {one.name for one in stored}
    without = _unfilled(held, names)
    known = set(held) | {name for name, _ in network.named_buffers()}
    over = [one for one in stored if one.name not in known and not _part_of_quantised(one.name, held)]
    if without and over:
        without, over = _renamed({name: held[name] for name in without}, over)
    ignored = [*(getattr(network, "_keys_to_ignore_on_load_unexpected", None) or ())]
    if type(network).__name__.endswith("EncoderModel"):  # the half of a model that the class leaves out by its name
        ignored += [r"^decoder\.", r"^lm_head\."]
    over = [one for one in over if not any(re.search(pattern, one.name) for pattern in ignored)]
    if without:
        msg = (
            f"{what} has {counted(len(without), 'tensor')} without a value from any file, which would be random: "
            f"{listed(sorted(without))}; read was {where}. Either the file is incomplete, or the installed version of "
            "the library that reads it does not read them"
        )
        if over:
            unused = listed(sorted(one.name for one in over))
            msg += (
                f". Not used {'is' if len(over) == 1 else 'are'} {counted(len(over), 'tensor')} of the file: {unused}"
            )
        raise InputError(msg)
    if over:
        shown = listed(sorted(one.name for one in over))
        msg = f"{where} holds {len(over)} tensors that are not used in {what}: {shown}"
        raise InputError(msg)


def _unfilled(held: Mapping[str, Tensor], names: set[str]) -> list[str]:
    """Tensors of the network whose name no file has, and that are not another name of one that a file has."""
    filled = [one for name, one in held.items() if name in names]
    same, places = {id(one) for one in filled}, {_place(one) for one in filled} - {None}
    return [
        name
        for name, one in held.items()
        if name not in names and id(one) not in same and _place(one) not in places and not name.endswith(_COUNTERS)
    ]


def _place(tensor: Tensor) -> Any:
    """Its address in memory; None if it has no memory of its own."""
    if tensor.is_meta or not tensor.numel():
        return None
    try:
        return tensor.device, tensor.data_ptr(), tensor.shape
    except RuntimeError:  # a quantised tensor that is several
        return None


def _part_of_quantised(name: str, held: Mapping[str, Tensor]) -> bool:
    """Whether it is a scale or table of a weight that the file keeps quantised, as bitsandbytes does."""
    return any(name[:end] in held for end, letter in enumerate(name) if letter == ".")


def _renamed(without: Mapping[str, Tensor], over: list[_Stored]) -> tuple[list[str], list[_Stored]]:
    """Return what is left of both after tensors under other names were matched by their first numbers."""
    if any(one.file is None or one.file.suffix != _SAFE for one in over):
        return [*without], over
    heads: dict[tuple[torch.dtype, bytes], list[_Stored]] = {}
    for dtype in {one.dtype for one in without.values()}:
        for one in over:
            heads.setdefault((dtype, one.head(dtype)), []).append(one)
    left, found = dict.fromkeys(over), {}
    for name, tensor in without.items():
        if tensor.is_meta:
            continue
        shape = [*tensor.shape]
        head = _head(tensor.detach()[: _rows(shape)] if shape else tensor.detach(), tensor.dtype)
        candidates = [one for one in heads.get((tensor.dtype, head), []) if one in left]
        if candidates:
            last = name.rsplit(".", 1)[-1]
            found[name] = next((one for one in candidates if one.name.endswith(last)), candidates[0])
            del left[found[name]]
    tied = {_place(without[name]) for name in found}
    missing = [name for name in without if name not in found and _place(without[name]) not in tied]
    # several tensors may have become one: then no number is left over
    sizes = sum(without[name].numel() for name in found), sum(one.size() for one in over)
    return missing, [] if not missing and sizes[0] == sizes[1] else [*left]


def _rows(shape: list[int]) -> int:
    return -(-_HEAD // max(1, math.prod(shape[1:])))


def _head(tensor: Tensor, dtype: torch.dtype) -> bytes:
    head = tensor.reshape(-1)[:_HEAD].to("cpu", dtype).contiguous()
    return head.view(torch.uint8).numpy().tobytes()


def _files(folder: Path, variant: str = "") -> list[Path]:
    """Return the files that hold the weights of a folder; none if the folder has another form."""
    for suffix in (_SAFE, ".bin"):
        for stem in _STEMS:
            whole, index = folder / f"{stem}{variant}{suffix}", folder / f"{stem}{suffix}.index{variant}.json"
            if whole.is_file() and index.is_file() and suffix == _SAFE:
                msg = f"{folder} holds two sets of weights, {whole.name} and {index.name}: remove one of them"
                raise InputError(msg)
            if whole.is_file():
                return [whole]
            if index.is_file():
                return [folder / name for name in sorted(set(_map(index).values()))]
    return []


def _map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(Path(str(file)).name) for name, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{index} does not say which file holds which tensor: {error}"
        raise InputError(msg) from None


def _names(file: Path) -> Iterator[str]:
    if file.suffix == _SAFE:
        with safe_open(file, "pt") as stored:
            yield from stored.keys()
    else:
        # torch before 1.6 wrote no zip file, and only one can be mapped into memory
        yield from torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
