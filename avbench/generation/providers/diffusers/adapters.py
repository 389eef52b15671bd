"""Loads LoRAs into a pipeline's network; every tensor of a LoRA file is applied, or the file is refused.

diffusers translates the names of many trainers, and silently loses what it does not know: differences of whole weights
(``.diff``, ``.diff_b``), strengths (alpha) in another file or in the header, and layers that match nothing. So the
change that a file asks for is computed here, ``alpha / rank · B @ A`` for each of its pairs, and compared with the
network after diffusers has loaded the file. Differences are added here.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.core import InputError, counted, first_line, listed, nearest, require_known
from avbench.generation.detect import detect
from avbench.generation.diffusers_package import silenced
from avbench.generation.settings import check_kinds
from avbench.storage.reading import read_json, tensor_header

DENOISERS = ("transformer", "transformer_2", "unet")
"""Parts of a pipeline that a LoRA may change."""
_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_CONFIG = "adapter_config.json"
_SIDES = {"lora_A": "A", "lora_B": "B", "lora_down": "A", "lora_up": "B", "down": "A", "up": "B"}
_PAIR = re.compile(
    r"(?P<module>.+?)(?:\.(?P<new>lora_A|lora_B|lora_down|lora_up)|[._]lora\.(?P<old>down|up))"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<kind>weight|bias))?"
)
_MAGNITUDE = "lora_magnitude_vector"
_OURS = tuple(f"{name}." for name in DENOISERS)
_ELSEWHERE = ("text_encoder", "lora_")
"""Beginnings of module names in the files that diffusers translates: of its own networks, and of text encoders."""
_SINGLE_POINTS = re.compile(r"((?:self|cross)_attn|[kv]_img|img_emb|(?:time|text|patch)_embedding|time_projection)|_")
"""Words of Wan's own modules that contain an underscore, and the underscores that stand for dots."""
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Initialisations of a LoRA that also change the base weights, which adding the LoRA does not reproduce."""
_CLOSE = 0.02
"""Allowed relative error of a layer's change, because weights may be held in bfloat16."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA, the part of the pipeline that it changes, and how strongly."""

    file: Path
    component: str
    scale: float = 1.0


@dataclass(frozen=True)
class _Layer:
    """One pair of matrices in the file: the names of its tensors."""

    module: str
    a: str
    b: str
    alpha: str | None = None
    bias: str | None = None
    magnitude: str | None = None
    """Of DoRA, as peft names it."""


@dataclass(frozen=True)
class _Contents:
    """What a file holds, by the names of its tensors."""

    layers: tuple[_Layer, ...]
    differences: Mapping[str, str]
    """Tensor → the weight or bias that it is added to, both named as in the file."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields such as ``lora_alpha`` from peft's config or the header; empty if they have none."""


def read_adapters(
    asked: Sequence[Any], component: str | None, scale: Any, classes: Mapping[str, str], find: Callable[[str], Path]
) -> tuple[Adapter, ...]:
    """Find the LoRAs that ``-M lora=`` names and check the files' headers; no weight is read.

    Args:
        asked: paths, and objects with ``path``, ``component`` and ``scale``.
        component: the part of the pipeline for LoRAs that name none.
        scale: the strength for LoRAs that name none.
        classes: part of the pipeline → its class.
        find: maps a given path or name to a path on this machine.

    Raises:
        InputError: the LoRA or the part does not exist, or a tensor has an unknown meaning.
    """
    found = []
    for one in asked:
        plain = one if isinstance(one, dict) else {"path": one}
        for name in plain:
            require_known("-M lora:", name, ("path", "component", "scale"))
        if not isinstance(plain.get("path"), str) or not plain["path"]:
            msg = (
                f'-M lora: {one!r} is no path; give one, an object such as {{"path": "FILE", "scale": 0.8}}, or a list'
            )
            raise InputError(msg)
        path = find(plain["path"])
        try:
            kind = detect(path).kind
        except InputError as error:
            msg = f"-M lora: {error}"
            raise InputError(msg) from None
        if kind != "LoRA":
            msg = f"-M lora: {path} is no LoRA: none of its tensors has the name of a LoRA's"
            raise InputError(msg)
        file, strength = lora_file(path), plain.get("scale", scale)
        check_kinds({(name := f"{path}: lora_scale"): strength}, numbers=[name])
        contents = _contents(file)
        place = _component(file, contents, plain.get("component", component), classes)
        found.append(Adapter(file, place, float(strength)))
    return tuple(found)


def lora_file(path: Path) -> Path:
    """The safetensors file of a LoRA. Raises InputError if a folder holds none, or several."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.safetensors"))
    named = [one for one in found if one.name in _FILES] or found
    if len(named) != 1:
        msg = f"{path} holds {len(named)} safetensors files; give the path of the one that is the LoRA"
        raise InputError(msg)
    return named[0]


def config_beside(file: Path) -> Path | None:
    """The peft config of a LoRA's file, if the file has a usual name or is the only one in its folder."""
    beside = file.parent / _CONFIG
    belongs = file.name in _FILES or len([*file.parent.glob("*.safetensors")]) == 1
    return beside if beside.is_file() and belongs else None


def apply(pipe: Any, adapters: Sequence[Adapter]) -> None:
    """Add LoRAs to a loaded pipeline.

    Raises:
        InputError: a tensor matched nothing, or its change differs from what the file asks for.
    """
    if adapters and not hasattr(pipe, "load_lora_weights"):
        msg = f"{type(pipe).__name__} takes no LoRA"
        raise InputError(msg)
    contents = [_contents(one.file) for one in adapters]
    # differences come first, because a LoRA renames the weights below it
    for adapter, held in zip(adapters, contents, strict=True):
        _add_differences(pipe, adapter, held)
    names: dict[str, list[tuple[str, float]]] = {}
    for number, (adapter, held) in enumerate(zip(adapters, contents, strict=True), 1):
        name = "lora" if number == 1 else f"lora{number}"  # peft allows no "lora_" in a name
        if held.layers:
            _add_layers(pipe, adapter, held, name)
            for part, network in _networks(pipe):
                if name in getattr(network, "peft_config", {}):
                    names.setdefault(part, []).append((name, adapter.scale))
    for part, network in _networks(pipe):
        if part in names:
            _set_scales(network, *zip(*names[part], strict=True))


def _contents(file: Path) -> _Contents:
    """Sort a file's tensors by meaning. Raises InputError that names those with an unknown meaning."""
    names = tensor_header(file)
    metadata = dict(names.pop("__metadata__", None) or {})
    sides: dict[str, dict[str, str]] = {}
    alphas, differences, magnitudes, strange = {}, {}, {}, []
    for name in names:
        stem, _, last = name.rpartition(".")
        if pair := _PAIR.fullmatch(name):
            side = _SIDES[pair["new"] or pair["old"]]
            role = side if pair["kind"] != "bias" else f"{side} bias"
            if role == "A bias" or role in sides.setdefault(pair["module"], {}):
                strange.append(name)
            sides[pair["module"]][role] = name
        elif last == "alpha":
            alphas[re.sub(r"[._]lora$", "", stem)] = name
        elif last in ("diff", "diff_b"):
            differences[name] = f"{stem}.{'weight' if last == 'diff' else 'bias'}"
        elif _MAGNITUDE in name:
            magnitudes[name.partition(f".{_MAGNITUDE}")[0]] = name
        else:
            strange.append(name)
    whole = {module: one for module, one in sides.items() if {"A", "B"} <= one.keys()}
    strange += [name for module, one in sides.items() if module not in whole for name in one.values()]
    strange += [name for module, name in (*alphas.items(), *magnitudes.items()) if module not in whole]
    if strange:
        msg = (
            f"{file} holds {counted(len(strange), 'tensor')} of no known part of a LoRA (pairs of A and B or "
            f"down and up, alpha, diff, diff_b): {listed(sorted(strange))}; none may be dropped"
        )
        raise InputError(msg)
    for module, one in whole.items():
        _check_pair(file, module, names[one["A"]], names[one["B"]])
    for name in alphas.values():
        if math.prod(names[name]["shape"]) != 1:
            msg = f"{file}: {name} has the shape {names[name]['shape']}; it must be one number"
            raise InputError(msg)
    if magnitudes and (plain := [module for module in whole if module not in magnitudes]):
        msg = f"{file}: {len(plain)} of its {len(whole)} layers of DoRA have no {_MAGNITUDE}: {listed(sorted(plain))}"
        raise InputError(msg)
    layers = tuple(
        _Layer(module, one["A"], one["B"], alphas.get(module), one.get("B bias"), magnitudes.get(module))
        for module, one in whole.items()
    )
    # an alpha beside a pair is the pair's own, and overrides the header
    config = _config(file, metadata) if any(one.alpha is None for one in layers) else {}
    if config.get("use_dora") and not magnitudes:
        msg = f"{file}: use_dora is set, but the file holds no {_MAGNITUDE}"
        raise InputError(msg)
    return _Contents(layers, differences, config)


def _check_pair(file: Path, module: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise InputError unless two entries of a header are matrices ``[rank, in, …]`` and ``[out, rank, …]``."""
    down, up = a["shape"], b["shape"]
    if min(len(down), len(up)) < 2 or down[0] != up[1] or not down[0]:
        msg = f"{file}: {module} has the shapes {down} and {up}; a pair has [rank, in] and [out, rank]"
        raise InputError(msg)
    if wrong := [one["dtype"] for one in (a, b) if not str(one["dtype"]).startswith(("F", "BF"))]:
        msg = f"{file}: {module} has the type {wrong[0]}; a LoRA is of floating-point numbers"
        raise InputError(msg)


def _config(file: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The strength given in the header and in peft's config beside the file; they must not contradict each other."""
    places = {}
    if beside := config_beside(file):
        places[str(beside)] = read_json(beside)
        if not isinstance(places[str(beside)], dict):
            msg = f"{beside} is no config of peft: it must be a JSON object"
            raise InputError(msg)
    if inside := _from_header(file, metadata):
        places[f"the header of {file}"] = inside
    alphas = {place: config["lora_alpha"] for place, config in places.items() if "lora_alpha" in config}
    if len({float(one) for one in alphas.values() if _number(one)}) > 1:
        msg = f"{' and '.join(alphas)} contradict each other: lora_alpha is {' and '.join(map(str, alphas.values()))}"
        raise InputError(msg)
    merged: dict[str, Any] = {}
    for place, config in places.items():
        _check_config(place, config)
        merged |= config
    return merged


def _from_header(file: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A header's fields: peft's config as JSON, as diffusers writes it, or single fields, with or without a prefix."""
    found: dict[str, Any] = {}
    for name, value in metadata.items():
        try:
            plain = json.loads(value)
        except (TypeError, ValueError):
            plain = value
        fields = plain if isinstance(plain, dict) and any("lora_alpha" in key for key in plain) else {name: plain}
        for key, one in fields.items():
            part, _, last = str(key).rpartition(".")
            if part.startswith("text_encoder"):
                continue
            if last in ("ss_network_alpha", "network_alpha", "alpha"):
                last = "lora_alpha"
            if last in ("lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "init_lora_weights"):
                if found.setdefault(last, one) != one:
                    msg = f"{file}: its header contradicts itself: {last} is {found[last]} and {one}"
                    raise InputError(msg)
    return found


def _check_config(place: str, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        msg = f"{place}: peft_type is {kind}, and only LORA can be applied"
        raise InputError(msg)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        msg = f"{place}: init_lora_weights is {start!r}: it fits changed base weights only; save it as a plain LoRA"
        raise InputError(msg)
    for name in ("alpha_pattern", "rank_pattern"):
        if not isinstance(config.get(name) or {}, dict):
            msg = f"{place}: {name} is {config[name]!r}; it must be an object"
            raise InputError(msg)
    for name in ("use_rslora", "use_dora"):
        if not isinstance(config.get(name) or False, bool):
            msg = f"{place}: {name} is {config[name]!r}; it must be true or false"
            raise InputError(msg)
    for pattern in config.get("alpha_pattern") or {}:
        try:
            re.compile(pattern)
        except re.error as error:
            msg = f"{place}: {pattern!r} in alpha_pattern is no regular expression: {error}"
            raise InputError(msg) from None
    for alpha in (config.get("lora_alpha", 1), *(config.get("alpha_pattern") or {}).values()):
        if not _number(alpha):
            msg = f"{place}: lora_alpha is {alpha!r}; it must be a number"
            raise InputError(msg)


def _number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _component(file: Path, contents: _Contents, asked: Any, classes: Mapping[str, Any]) -> str:
    """The part that a LoRA changes: the requested one, else the one that its names contain, else the only one."""
    choices = [name for name in DENOISERS if name in classes]
    if not choices:
        msg = f"{file}: the pipeline has no part that takes a LoRA; it has {', '.join(sorted(classes))}"
        raise InputError(msg)
    modules = [one.module for one in contents.layers] + [*contents.differences]
    named = {name for name in DENOISERS for module in modules if module.startswith(f"{name}.")}
    if asked is not None:
        if asked not in choices:
            msg = f"-M component={asked}: the pipeline has no such part for {file}; {nearest(str(asked), choices)}"
            raise InputError(msg)
        return str(asked)
    if "transformer_2" in named:
        if "transformer_2" not in choices:
            msg = (
                f"{file} is for a second transformer (transformer_2), which this pipeline does not have; "
                f"-M component={choices[0]} applies it to the {choices[0]} all the same"
            )
            raise InputError(msg)
        if len(named) > 1:
            msg = f"{file} holds layers of {' and '.join(sorted(named))}: split it into one file for each of them"
            raise InputError(msg)
        return "transformer_2"
    if len(choices) > 1:
        msg = (
            f"{file} could belong to any of {', '.join(choices)}, and its names do not tell which: choose one, "
            f"for example -M component={choices[-1]}; for one LoRA each, "
            '-M lora=\'[{"path": "HIGH", "component": "transformer"}, {"path": "LOW", "component": "transformer_2"}]\''
        )
        raise InputError(msg)
    return choices[0]


def _networks(pipe: Any) -> Iterator[tuple[str, Any]]:
    from torch import nn

    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            yield name, part


def _add_differences(pipe: Any, adapter: Adapter, contents: _Contents) -> None:
    """Add ``.diff`` and ``.diff_b`` to the weights and biases that they belong to."""
    if not contents.differences:
        return
    import torch

    network = getattr(pipe, adapter.component)
    tensors = _tensors(adapter.file, contents.differences)
    asked = {_bare(target): tensors[name] for name, target in contents.differences.items()}
    held = dict(network.named_parameters())
    named = asked if asked.keys() <= held.keys() else _translated(network, asked, adapter.file)
    lost = sorted(name for name in named if name not in held or held[name].shape != named[name].shape)
    if lost:
        shown = [f"{name} of shape {tuple(named[name].shape)}" for name in lost]
        msg = f"{adapter.file}: {len(lost)} of its {len(named)} differences match nothing in the {adapter.component} "
        raise InputError(msg + f"({type(network).__name__}): {listed(shown)}")
    with torch.no_grad():
        for name, change in named.items():
            weight = held[name]
            if not weight.is_floating_point() or weight.dtype.itemsize < 2:
                msg = f"{adapter.file}: {name} has the type {weight.dtype}, to which no difference can be added"
                raise InputError(msg)
            weight.copy_(weight.float() + adapter.scale * change.float().to(weight.device))


def _bare(name: str) -> str:
    for prefix in ("base_model.model.", "model.", "diffusion_model.", "transformer_2.", "transformer.", "unet."):
        name = name.removeprefix(prefix)
    return name


def _translated(network: Any, asked: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Differences under diffusers' names. Each has its weight's shape, so the conversion of weights converts them."""
    from avbench.generation.providers.diffusers.single_file import conversion, followed

    convert = conversion(type(network))
    try:
        if convert is None:
            return dict(asked)
        _, lost = followed(convert, network.config, {name: one.shape for name, one in asked.items()})
        if not lost:
            return convert(checkpoint=dict(asked), config=network.config)
    except Exception:  # the conversion of a whole file may need all of its tensors
        lost = set(asked)
    msg = f"{file}: {len(lost)} of its {len(asked)} differences have no name in {type(network).__name__}: "
    raise InputError(msg + listed(sorted(lost)))


def _add_layers(pipe: Any, adapter: Adapter, contents: _Contents, name: str) -> None:
    """Load the pairs as the file has them, else with simplified names and strengths; then check each of them."""
    parts = [(one.a, one.b, one.alpha, one.bias, one.magnitude) for one in contents.layers]
    tensors = _tensors(adapter.file, [name for one in parts for name in one if name])
    strengths = {one: _strength(one, contents, tensors) for one in contents.layers}
    wanted = [(one, _change(tensors[one.a], tensors[one.b], strength)) for one, strength in strengths.items()]
    others = {one.bias: _flat(tensors[one.bias]) * strength for one, strength in strengths.items() if one.bias}
    others |= {one.magnitude: _flat(tensors[one.magnitude]) for one in contents.layers if one.magnitude}
    as_they_are = None if contents.differences else adapter.file
    trouble, least = "", [one.module for one in contents.layers]
    renamed = _plain(strengths, tensors, getattr(pipe, adapter.component))
    for state in (as_they_are or dict(tensors), renamed):
        try:
            _load(pipe, adapter, state, name)
        except Exception as error:  # of diffusers, peft or torch; the second way may succeed
            trouble = trouble or _trouble(error)
        lost = _lost(pipe, adapter.component, name, wanted, others)
        if not lost:
            return
        least = min(lost, least, key=len)
        for _, network in _networks(pipe):
            if name in getattr(network, "peft_config", {}):
                (network.delete_adapters if hasattr(network, "delete_adapters") else network.delete_adapter)(name)
    msg = (
        f"{adapter.file}: {len(least)} of its {len(contents.layers)} LoRA layers match nothing in the "
        f"{adapter.component} of {type(pipe).__name__}: {listed(sorted(least))}; none may be dropped"
    )
    raise InputError(msg + (f" ({trouble[:200]})" if trouble else ""))


def _load(pipe: Any, adapter: Adapter, source: Path | dict[str, Any], name: str) -> None:
    options: dict[str, Any] = {"adapter_name": name, "local_files_only": True}
    if adapter.component == "transformer_2":
        options["load_into_transformer_2"] = True
    if isinstance(source, Path):
        options |= {"weight_name": source.name}
    # diffusers prints and warns of keys that match nothing, which are checked here, and of a second LoRA
    with warnings.catch_warnings(), silenced():
        warnings.simplefilter("ignore")
        pipe.load_lora_weights(str(source.parent) if isinstance(source, Path) else source, **options)


def _trouble(error: Exception) -> str:
    """What diffusers, peft or torch said, where it tells something."""
    if found := re.search(r"size mismatch for (\S+): .*?(\[.*?\]).*?(\[.*?\])", str(error)):
        name, theirs, ours = found.groups()
        return f"{name} would have the shape {theirs} and not {ours}, so it is for a model of another size"
    return "" if isinstance(error, LookupError) or "state_dict" in str(error) else first_line(error)


def _plain(strengths: Mapping[_Layer, float], tensors: Mapping[str, Any], network: Any) -> dict[str, Any]:
    """The pairs under names that diffusers translates or knows, each with strength 1."""
    modules = {name for name, _ in network.named_modules()}
    own = "unet" if "UNet" in type(network).__name__ else "transformer"  # diffusers' name for either transformer
    state = {}
    for one, strength in strengths.items():
        module = _unflattened(_bare(one.module), modules)
        if module in modules or one.module.startswith(_OURS):
            module = f"{own}.{module}"
        elif not module.startswith(_ELSEWHERE):
            module = f"diffusion_model.{module}"
        state[f"{module}.lora_A.weight"] = tensors[one.a]
        state[f"{module}.lora_B.weight"] = (tensors[one.b].float() * strength).to(tensors[one.b].dtype)
        if one.bias:
            state[f"{module}.lora_B.bias"] = (tensors[one.bias].float() * strength).to(tensors[one.bias].dtype)
        if one.magnitude:
            state[f"{module}.{_MAGNITUDE}"] = tensors[one.magnitude].flatten()
    return state


def _unflattened(module: str, modules: Iterable[str]) -> str:
    """A module's name with dots where Kohya's trainers write underscores; other names are unchanged."""
    for prefix in ("lora_unet_", "lora_transformer_"):
        if module.startswith(prefix):
            flat = module.removeprefix(prefix)
            known = {name.replace(".", "_"): name for name in modules}
            return known.get(flat) or _SINGLE_POINTS.sub(lambda found: found[1] or ".", flat)
    return module


def _strength(layer: _Layer, contents: _Contents, tensors: Mapping[str, Any]) -> float:
    """The alpha / rank of a pair, from wherever alpha is given; 1 if it is given nowhere."""
    rank, config = len(tensors[layer.a]), contents.config
    if layer.alpha:
        return float(tensors[layer.alpha]) / rank
    alpha = config.get("lora_alpha")
    for pattern, one in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer.module):
            alpha = one
            break
    if alpha is None:
        return 1.0
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _change(a: Any, b: Any, strength: float) -> Any:
    """The effect of a pair on one fixed input, which is the same in every process."""
    import torch

    a, b = a.detach().float().flatten(1).cpu(), b.detach().float().flatten(1).cpu()
    probe = torch.randn(a.shape[1], generator=torch.Generator().manual_seed(0))
    return strength * (b @ (a @ probe))


def _lost(
    pipe: Any, component: str, name: str, wanted: Iterable[tuple[_Layer, Any]], others: Mapping[str, Any]
) -> list[str]:
    """Return the layers of a file whose change is found in no layer of the pipeline, and its biases and magnitudes that
    are not found.
    """
    elsewhere = [part for part in DENOISERS if part != component]
    made, beside = [], []
    for network in [network for part, network in _networks(pipe) if part not in elsewhere]:
        for module in network.modules():
            if name in getattr(module, "lora_A", {}):
                a, b, strength = module.lora_A[name], module.lora_B[name], module.scaling[name]
                made.append(_change(a.weight, b.weight, strength))
                if getattr(b, "bias", None) is not None:
                    beside.append(_flat(b.bias) * strength)
        beside += [_flat(one) for key, one in network.named_parameters() if f"magnitude_vector.{name}" in key]
    return [layer.module for layer, change in wanted if not _take(change, made)] + [
        key for key, one in others.items() if not any(_close(one, each) for each in beside)
    ]


def _flat(tensor: Any) -> Any:
    return tensor.detach().float().flatten().cpu()


def _take(change: Any, made: list[Any]) -> bool:
    """Whether one of the unused changes in `made` equals this one; that one is then marked as used.

    Where layers were joined, this change is a part of one; where one was split, it consists of several.
    """
    size = len(change)
    for number, one in enumerate(made):
        for at in range(0, len(one) - size + 1, size):
            if _close(change, one[at : at + size]):
                made[number : number + 1] = [part for part in (one[:at], one[at + size :]) if len(part)]
                return True
    at, parts = 0, []
    while at < size:
        fitting = [n for n, one in enumerate(made) if n not in parts and _close(change[at : at + len(one)], one)]
        if not fitting:
            return False
        parts.append(fitting[0])
        at += len(made[fitting[0]])
    for number in sorted(parts, reverse=True):
        del made[number]
    return True


def _close(one: Any, other: Any) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= _CLOSE * one.norm())


def _set_scales(network: Any, names: Sequence[str], scales: Sequence[float]) -> None:
    if hasattr(network, "set_adapters"):
        network.set_adapters([*names], [*scales])
    else:  # a text encoder is a network of transformers
        from diffusers.loaders.lora_base import set_adapters_for_text_encoder

        set_adapters_for_text_encoder([*names], network, [*scales])


def _tensors(file: Path, names: Iterable[str]) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(file, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in names}
    if wrong := [name for name, one in tensors.items() if not one.float().isfinite().all()]:
        msg = f"{file}: {len(wrong)} of its tensors hold values that are NaN or infinite: {listed(sorted(wrong))}"
        raise InputError(msg)
    return tensors
