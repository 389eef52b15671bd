"""Reads the rules of curation from rules.toml, or from a user's file of the same form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError, require_known
from avbench.curation.measures import MEASURES
from avbench.storage.reading import read_toml

SHIPPED = Path(__file__).parent / "rules.toml"
QUALITY = "quality"
_COMPARISONS = ("at_least", "at_most", "at_least_percentile")


@dataclass(frozen=True)
class Condition:
    """One condition that a clip must meet."""

    rule: str
    measure: str
    comparison: str
    threshold: float
    origin: str
    or_none: bool = False

    @property
    def name(self) -> str:
        """The condition in words, as in the audit."""
        return f"{self.measure} {self.comparison.replace('_', ' ')} {self.threshold:g}"


@dataclass(frozen=True)
class Rules:
    """All rules of a file."""

    conditions: Mapping[str, tuple[Condition, ...]]
    purposes: Mapping[str, str]

    def of(self, name: str) -> tuple[Condition, ...]:
        """The conditions of [quality], then the rule's own. Raises InputError on an unknown rule."""
        own = [rule for rule in self.conditions if rule != QUALITY]
        require_known("rule", name, own)
        return (*self.conditions.get(QUALITY, ()), *self.conditions[name])


def read(path: Path = SHIPPED) -> Rules:
    """Read a file of rules. Raises InputError that names the first rule with an error."""
    plain = read_toml(path)
    conditions: dict[str, tuple[Condition, ...]] = {}
    for rule, table in plain.items():
        if not isinstance(table, Mapping) or not isinstance(table.get("conditions"), list):
            msg = f"{path}: the rule {rule!r} has no list of conditions"
            raise InputError(msg)
        conditions[rule] = tuple(_condition(path, rule, one) for one in table["conditions"])
        if not conditions[rule]:
            msg = f"{path}: the rule {rule!r} has an empty list of conditions, which would keep every clip"
            raise InputError(msg)
    return Rules(conditions, {rule: str(table.get("purpose", "")) for rule, table in plain.items()})


def _condition(path: Path, rule: str, plain: Any) -> Condition:
    rest = dict(plain) if isinstance(plain, Mapping) else {}
    measure, origin, or_none = rest.pop("measure", None), rest.pop("from", "not stated"), rest.pop("or_none", False)
    require_known(f"{path}, rule {rule!r}: measure", measure, MEASURES)
    if len(rest) != 1 or not set(rest) <= set(_COMPARISONS):
        msg = f"{path}, rule {rule!r}: {measure} needs one of {', '.join(_COMPARISONS)}; it has {sorted(rest)}"
        raise InputError(msg)
    ((comparison, threshold),) = rest.items()
    where = f"{path}, rule {rule!r}: {measure} {comparison} {threshold!r}"
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        msg = f"{where} is not a number"
        raise InputError(msg)
    if comparison == "at_least_percentile" and not 0 <= threshold <= 100:
        msg = f"{where} is no percentile; write a number from 0 to 100"
        raise InputError(msg)
    if not isinstance(or_none, bool):
        msg = f"{where}: or_none is {or_none!r}; it must be true or false"
        raise InputError(msg)
    return Condition(rule, measure, comparison, float(threshold), str(origin), or_none)
