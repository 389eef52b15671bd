"""Reads, checks and counts the blind votes that a page exported, and fits Bradley–Terry strengths to them.

A vote says which of two clips of one prompt and seed is better, or that neither is. Strengths s are those under which
i beats j with probability 1/(1 + exp(s_j − s_i)) (Bradley and Terry, 1952), by maximum likelihood, a tie as half a win
of either side. They are measured from the mean of those that can be compared. Their 95 % intervals are clustered by
prompt, because votes on one prompt are alike: the sandwich of Liang and Zeger (1986) with the factor G/(G−1) and
Student's t with G−1 degrees of freedom, G being the effective number of prompts, as for means
(`uncertainty.mean_interval`).

The likelihood has a maximum where every model of a group has won against, and lost against, each other one directly or
through others (Ford, 1957): strengths are given inside such groups, and a sentence where they are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, special

from avbench.core import InputError, all_of, listed
from avbench.statistics import clustered
from avbench.storage.reading import read_json, shaped_plain

CHOICES = {"left": 1.0, "tie": 0.5, "right": 0.0}
"""Each possible vote, and its value for the clip on the left."""
FORMAT = 2
"""Format of exported files; their field `avbench_votes` holds it."""


@dataclass(frozen=True)
class Strength:
    """One run's strength, or a sentence why it has none."""

    run: str
    votes: int
    group: int
    """Strengths of one group can be compared."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str | None = None


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """All votes of some exported files, one row each: file, rater, subset, prompt, seed, left, right, vote.

    A file does not say who voted, so each counts as one rater.

    Raises:
        InputError: a file is no export, names a run that it does not list, votes on one pair twice, or was made on
            other prompts than another file; two files are of one ballot.
    """
    rows: list[dict[str, Any]] = []
    digests: dict[str, tuple[str, Path]] = {}
    ballots: dict[str | int, Path] = {}
    for path in paths:
        ballot = _checked(path)
        for mark in (repr(ballot.votes), ballot.seed):  # each ballot draws a seed of its own
            if (twin := ballots.setdefault(mark, path)) is not path:
                msg = f"{path} is of the same ballot as {twin}: give each ballot once, the file with the most votes"
                raise InputError(msg)
        for name, digest in ballot.subsets.items():
            known, first = digests.setdefault(name, (digest, path))
            if known != digest:
                msg = f"{path} and {first} were voted on unlike versions of {name}: {digest[:12]} and {known[:12]}"
                raise InputError(msg)
        rows += [{"file": path.name, "rater": str(path), **asdict(vote)} for vote in ballot.votes]
    if not rows:
        msg = "there are no votes in these files"
        raise InputError(msg)
    return pd.DataFrame(rows)


def pairs(votes: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of runs that were compared: run, against, won, tied, lost (by run), votes, prompts."""
    found = []
    swap = votes["left"] > votes["right"]
    score = pd.Series([CHOICES[vote] for vote in votes["vote"]], votes.index, dtype=float)
    sides = votes.assign(
        run=votes["left"].where(~swap, votes["right"]),
        against=votes["right"].where(~swap, votes["left"]),
        score=score.where(~swap, 1 - score),
    )
    groups: Any = sides.groupby(["run", "against"])
    for (run, against), of_pair in groups:
        counts = {name: int((of_pair["score"] == score).sum()) for name, score in _OUTCOMES.items()}
        prompts = of_pair["prompt"].nunique()
        found.append({"run": run, "against": against, **counts, "votes": len(of_pair), "prompts": prompts})
    return pd.DataFrame(found)


_ROUNDING = 1e-6
"""Log odds below which an interval has no width."""
_OUTCOMES = {"won": 1.0, "tied": 0.5, "lost": 0.0}


def strengths(votes: pd.DataFrame) -> list[Strength]:
    """Bradley–Terry strengths of all runs that were voted on, the strongest of each group first."""
    runs = sorted({*votes["left"], *votes["right"]})
    left, right = (votes[side].map(runs.index).to_numpy() for side in ("left", "right"))
    score = np.array([CHOICES[vote] for vote in votes["vote"]], dtype=float)
    prompts = votes.groupby("prompt", sort=False).ngroup().to_numpy()  # one that two subsets have is one prompt
    group = _groups(left, right, score, len(runs))
    found = []
    for number in range(group.max() + 1):
        members = np.flatnonzero(group == number)
        counts = [int(((left == one) | (right == one)).sum()) for one in members]
        if len(members) == 1:
            found.append(Strength(runs[members[0]], counts[0], number, missing=_ONE_WAY))
            continue
        inside = np.isin(left, members) & np.isin(right, members)
        design = np.zeros((int(inside.sum()), len(runs)))
        design[np.arange(len(design)), left[inside]] = 1
        design[np.arange(len(design)), right[inside]] = -1
        value, half_width = _fit(design[:, members], score[inside], prompts[inside])
        rows = zip(members, counts, value, half_width, strict=True)
        of_group = [
            Strength(
                runs[one], count, number, float(s), *((None, None) if np.isnan(r) else (float(s - r), float(s + r)))
            )
            for one, count, s, r in rows
        ]
        found += sorted(of_group, key=lambda each: -(each.value or 0.0))
    return found


_ONE_WAY = "no vote contradicts its place above or below the others, so its strength has no finite value"


def remarks(votes: pd.DataFrame) -> list[str]:
    """Return sentences on what the strengths leave open, such as runs that never met, and on how clips were shown."""
    met, found = pairs(votes), strengths(votes)
    sentences = [f"{one.run}: {one.missing}." for one in found if one.missing]
    runs = sorted({*met["run"], *met["against"]})
    met_pairs = set(zip(met["run"], met["against"], strict=True))
    for index, run in enumerate(runs):
        never = [other for other in runs[index + 1 :] if (run, other) not in met_pairs]
        if never:
            sentences.append(f"{run} never met {', '.join(never)}.")
    many = {each.group for each in found if each.value is not None}
    if len(many) > 1:
        sentences.append("Strengths of different groups cannot be compared: votes do not connect them both ways.")
    if no_interval := [one.run for one in found if one.value is not None and one.low is None]:
        why = "their votes are on one prompt, or say the same on every prompt"
        sentences.append(f"The strengths of {all_of(no_interval)} have no interval: {why}.")
    return [*sentences, *_one_sided(votes), *_conforming(votes)]


def _one_sided(votes: pd.DataFrame) -> list[str]:
    """Return a sentence on raters who always chose one side, also where two runs changed sides; by chance 1 in 500."""
    sentences = []
    groups: Any = votes[votes["vote"] != "tie"].groupby("rater", sort=False)
    for side in ("left", "right"):
        raters = [
            Path(rater).name
            for rater, own in groups
            if len(own) >= _MANY_VOTES and (own["vote"] == side).all() and _changed_sides(own)
        ]
        if raters:
            named = listed(raters, _MOST_NAMED)
            sentences.append(
                f"The clip on the {side} was chosen in every clear vote of {named}: were the clips looked at?"
            )
    return sentences


def _changed_sides(votes: pd.DataFrame) -> bool:
    """Whether two runs stood both ways."""
    sides = {*zip(votes["left"], votes["right"], strict=True)}
    return any((right, left) in sides for left, right in sides)


_MANY_VOTES, _MOST_NAMED = 10, 4


def _conforming(votes: pd.DataFrame) -> list[str]:
    """Return a sentence on what was done to clips so that votes stayed blind; none where nothing is known."""
    known = [one for one in (votes["conformed"] if "conformed" in votes else ()) if isinstance(one, Mapping)]
    counts = {words: sum(one[name] not in (None, False) for one in known) for name, words in _DONE.items()}
    parts = [f"{count} {words}" for words, count in counts.items() if count]
    return [f"So that no clip was given away, of {len(known)} votes' pairs {'; '.join(parts)}."] if parts else []


@dataclass(frozen=True)
class Conformed:
    """What the page did to both clips of a vote so that nothing but their content tells them apart."""

    muted: bool = False
    """One had no sound, so both were played without."""
    aspect: float | None = None
    """Width over height that both were cropped to; None if they had one shape."""
    seconds: float | None = None
    """Where both ended; None if they had one length."""
    quieter_db: float | None = None
    """By how much the louder one was turned down; None if they were equally loud, or played without sound."""


_DONE = {
    "muted": "played without sound, because one of the clips has none",
    "aspect": "cropped to one shape",
    "seconds": "ended with the shorter clip",
    "quieter_db": "played equally loud, the louder clip turned down",
}
"""Field of Conformed → what was done, for `remarks`."""


@dataclass(frozen=True)
class _Vote:
    subset: str
    prompt: str
    seed: int
    left: str
    right: str
    vote: str
    conformed: Conformed


@dataclass(frozen=True)
class _Ballot:
    """A file that a report's page exported."""

    avbench_votes: int
    runs: tuple[str, ...]
    subsets: Mapping[str, str]
    votes: tuple[_Vote, ...]
    seed: int


def _checked(path: Path) -> _Ballot:
    """One file. Raises InputError if it is no such file, or holds impossible votes."""
    if path.suffix.lower() != ".json":
        msg = (
            f"{path} is no file of votes that a report's page exported (.json); "
            "`avbench votes` takes files of other studies, with --run"
        )
        raise InputError(msg)
    plain = read_json(path)
    if not isinstance(plain, dict) or type(made := plain.get("avbench_votes")) is not int:
        msg = f"{path} is not a file of votes that a report's page exported"
        raise InputError(msg)
    if made != FORMAT:
        msg = f"{path} is of the format {made}, and this avbench reads {FORMAT}: use the avbench that made its page"
        raise InputError(msg)
    ballot, seen = shaped_plain(plain, _Ballot, str(path)), set()
    for number, vote in enumerate(ballot.votes, start=1):
        if vote.vote not in CHOICES:
            msg = f"{path}, vote {number} is {vote.vote!r}; it must be one of {', '.join(CHOICES)}"
            raise InputError(msg)
        if vote.left == vote.right or not {vote.left, vote.right} <= set(ballot.runs):
            msg = f"{path}, vote {number}: {vote.left!r} and {vote.right!r} must be two of {', '.join(ballot.runs)}"
            raise InputError(msg)
        where = (vote.subset, vote.prompt, vote.seed, *sorted((vote.left, vote.right)))
        if where in seen:
            msg = f"{path}, vote {number}: {vote.prompt} of {vote.left} and {vote.right} was voted on before"
            raise InputError(msg)
        seen.add(where)
    return ballot


def _groups(left: np.ndarray, right: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """Return one number per run, ``[runs]``: runs with equal numbers have won and lost against each other, directly or
    through others.
    """
    lost = sparse.lil_array((count, count))
    lost[left[score < 1], right[score < 1]] = 1
    lost[right[score > 0], left[score > 0]] = 1
    return sparse.csgraph.connected_components(lost.tocsr(), connection="strong")[1]


def _fit(design: np.ndarray, score: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strengths and half-widths of their intervals, ``[runs]`` each; NaN widths with fewer than two prompts, and where
    every prompt's votes give a run the same strength, so that nothing shows how much prompts differ.

    Newton's steps on a concave likelihood, each at most 2 in any strength; the pseudo-inverse keeps the mean at 0.
    """
    value, inverse = np.zeros(design.shape[1]), np.zeros((design.shape[1], design.shape[1]))
    for _ in range(100):
        expected = special.expit(design @ value)
        inverse = np.linalg.pinv(design.T @ (design * (expected * (1 - expected))[:, None]), hermitian=True)
        step = inverse @ (design.T @ (score - expected))
        value = value + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    clusters = np.unique(prompts)
    if len(clusters) < 2:
        return value, np.full(len(value), np.nan)
    residual = design * (score - special.expit(design @ value))[:, None]
    sums = np.stack([residual[prompts == one].sum(axis=0) for one in clusters])
    given = np.unique(prompts, return_counts=True)[1].astype(float)
    count = clustered.effective(given.sum(), np.square(given).sum())
    covariance = inverse @ (sums.T @ sums) @ inverse * count / (count - 1)
    half_width = clustered.quantile(max(count - 1, 1.0)) * np.sqrt(np.diag(covariance).clip(min=0))
    return value, np.where(half_width > _ROUNDING, half_width, np.nan)
