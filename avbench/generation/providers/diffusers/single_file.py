"""Loads a part of a pipeline from one weight file, and checks that every tensor and parameter is matched.

diffusers renames, splits and joins the tensors of other projects' files, silently drops some, and only warns about
those that it does not know. So its conversion is run once on tensors without content, to follow each tensor to its
result.

ComfyUI's fp8 files store a weight as ``weight / scale`` with its scale; the two are multiplied here first. The scales
of activations beside them (``scale_input``) are for matrix products in fp8, which are not used here.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avbench.core import InputError, counted, first_line, listed
from avbench.generation.detect import Detected
from avbench.generation.diffusers_package import diffusers
from avbench.storage.weights.filled import check_names, refuse_whole_numbers

_SCALES = (".scale_weight", ".weight_scale")
_ACTIVATIONS = (".scale_input", ".input_scale")
_MARKER, _FORMAT = "scaled_fp8", ".comfy_quant"
_WRAPPERS = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before every name of the model that they wrap."""
_SMALL = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)


def load_file(kind: Any, part: Detected, folder: Path, slot: str, dtype: torch.dtype) -> Any:
    """Read a network of the class `kind`, whose config is in the pipeline's folder.

    Raises:
        InputError: the class cannot be read from one file, a tensor matches nothing, or a parameter got no value.
    """
    if not hasattr(kind, "from_single_file"):
        msg = f"{part.path}: {kind.__name__} cannot be read from one file"
        raise InputError(msg)
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    try:
        checkpoint: Any = load_single_file_checkpoint(str(part.path), local_files_only=True)
    except Exception as error:  # its own error only repeats the path, so the one that it began with is shown
        first: BaseException = error
        while first.__context__:
            first = first.__context__
        msg = f"{part.path} is damaged, cut short or of another kind than its suffix: {first_line(first)}"
        raise InputError(msg) from error
    if any(not isinstance(one, Tensor) for one in checkpoint.values()):
        strange = listed(sorted(str(name) for name, one in checkpoint.items() if not isinstance(one, Tensor)))
        msg = f"{part.path} holds an entry that is no tensor: {strange}"
        raise InputError(msg)
    checkpoint = _unwrapped(checkpoint)
    _unscale(checkpoint, part.path, dtype)
    _check(kind, checkpoint, part.path, folder, slot)
    options = {}
    if part.kind == "GGUF":
        options["quantization_config"] = diffusers().GGUFQuantizationConfig(compute_dtype=dtype)
    # if its config is named, a file is never mistaken for another model, and nothing is looked up
    return kind.from_single_file(
        checkpoint, config=str(folder), subfolder=slot, dtype=dtype, local_files_only=True, **options
    )


def _unwrapped(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that they have in the model itself, where all of them have the prefix of a wrapper."""
    for prefix in _WRAPPERS * 2:  # one may wrap the other, either way
        if all(name.startswith(prefix) for name in checkpoint):
            checkpoint = {name.removeprefix(prefix): one for name, one in checkpoint.items()}
    return checkpoint


def conversion(kind: type) -> Callable[..., dict[str, Tensor]] | None:
    """The diffusers conversion of another project's file for this class: ``f(checkpoint=…, config=…)``."""
    from diffusers.loaders import single_file_model

    known = getattr(single_file_model, "SINGLE_FILE_LOADABLE_CLASSES", {})
    found = next((known[one.__name__] for one in kind.__mro__ if one.__name__ in known), {})
    return found.get("checkpoint_mapping_fn")


def followed(
    convert: Callable[..., dict[str, Tensor]], config: Mapping[str, Any], shapes: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Run a conversion on tensors that have these shapes and no content.

    Returns:
        The results' names with their shapes, and the names in `shapes` that lead to no result.
    """
    hollow = {name: torch.empty(tuple(shape), device="meta", requires_grad=True) for name, shape in shapes.items()}
    owners = {id(one): name for name, one in hollow.items()}
    with torch.enable_grad():
        out = convert(checkpoint=dict(hollow), config=config)
    reached: set[str] = set()
    for tensor in out.values():
        if id(tensor) in owners:
            reached.add(owners[id(tensor)])
        steps = [tensor.grad_fn]
        while steps:
            step = steps.pop()
            if step is not None:
                reached.add(owners.get(id(getattr(step, "variable", None)), ""))
                steps += [before for before, _ in step.next_functions]
    return {name: tuple(one.shape) for name, one in out.items()}, set(shapes) - reached


def _check(kind: Any, checkpoint: Mapping[str, Tensor], path: Path, folder: Path, slot: str) -> None:
    config = kind.load_config(str(folder), subfolder=slot, local_files_only=True)
    with _empty():
        network = kind.from_config(config)
    held = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    what = f"the {slot} ({kind.__name__})"
    # a quantised tensor of GGUF has the shape of its bytes
    shapes = {name: tuple(getattr(one, "quant_shape", one.shape)) for name, one in checkpoint.items()}
    if shapes.keys() != held.keys() and (convert := conversion(kind)):
        named, lost, trouble = {}, set(), None
        try:
            named, lost = followed(convert, config, shapes)
        except Exception as error:
            trouble = error
        # a file in diffusers' own form is compared as it is, so that the tensors that do not fit are named
        if len(named.keys() ^ held.keys()) + len(lost) <= len(shapes.keys() ^ held.keys()):
            if trouble:
                msg = f"{path} does not fit {what}: its names cannot be converted ({trouble!r})"
                raise InputError(msg) from trouble
            if lost:
                msg = f"{path} holds {counted(len(lost), 'tensor')} without a match in {what}: {listed(sorted(lost))}"
                raise InputError(msg)
            shapes = named
    check_names(network, shapes, what, str(path))
    other = [name for name, shape in shapes.items() if held.get(name, shape) != shape]
    if other:
        shown = listed(sorted(f"{name} is {shapes[name]} instead of {held[name]}" for name in other))
        msg = f"{path} is of another size than {what}: {shown}; give the pipeline that it belongs to, -M base="
        raise InputError(msg)


def _unscale(checkpoint: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """Multiply weights by their scales, in place."""
    for name in [name for name in checkpoint if name.endswith(_SCALES)]:
        base, scale = name.rpartition(".")[0], checkpoint[name].float()
        weight = checkpoint.get(f"{base}.weight")
        if weight is None or weight.dtype not in _SMALL:
            kind = "no weight" if weight is None else f"a weight of {weight.dtype}"
            msg = f"{path}: {name} is the scale of {kind}; it must be that of a weight in float8 or int8"
            raise InputError(msg)
        wrong = scale[~(scale.isfinite() & ((scale > 0) | (not weight.float().any())))]
        if len(wrong):
            msg = f"{path}: {name} holds the scale {wrong[0].item():g}; a scale is a number above 0"
            raise InputError(msg)
        if scale.ndim and len(scale) == scale.numel() == len(weight):  # one scale for each row
            scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
        elif scale.numel() != 1:
            shapes = f"{tuple(scale.shape)} for a weight of {tuple(weight.shape)}"
            msg = f"{path}: {name} has the shape {shapes}; it must hold one scale, or one for each row"
            raise InputError(msg)
        checkpoint[f"{base}.weight"] = (weight.float() * scale).to(dtype)
        del checkpoint[name]
        checkpoint.pop(f"{base}{_ACTIVATIONS[_SCALES.index('.' + name.rpartition('.')[2])]}", None)
        if _plain_float8(checkpoint.get(base + _FORMAT)):
            del checkpoint[base + _FORMAT]
    for name in [name for name in checkpoint if name.rpartition(".")[2] == _MARKER]:
        del checkpoint[name]
    whole = [
        f"{name} ({str(one.dtype).removeprefix('torch.')})"
        for name, one in checkpoint.items()
        if name.endswith((".weight", ".bias")) and not one.is_floating_point() and not hasattr(one, "quant_type")
    ]
    refuse_whole_numbers(str(path), whole)


def _plain_float8(record: Tensor | None) -> bool:
    if record is None:
        return False
    try:
        return str(json.loads(bytes(record.to(torch.uint8).tolist()))["format"]).startswith(
            ("float8_e4m3", "float8_e5m2")
        )
    except (ValueError, KeyError, TypeError):
        return False


def _empty() -> Any:
    try:
        from accelerate import init_empty_weights
    except ImportError:
        return contextlib.nullcontext()
    return init_empty_weights()
