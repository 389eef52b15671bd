"""Calls `avbench.api` for several commands, and prints notes and progress."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.cli.printing import ConsoleReporter, refuse, refuse_idle

if TYPE_CHECKING:
    from avbench.api import Work
    from avbench.comparison.plan import Plan
    from avbench.core import Shard
    from avbench.metrics.table import Metric
    from avbench.storage.mirrors.mirror import Mirrors
    from avbench.storage.runs.view import RunView
    from avbench.storage.workers.ray_actors import RayActors

ENGINES = ("local", "ray")
CONSOLE = ConsoleReporter()
"""Notes of one command, each printed once."""
LOST_MIRROR = "all is done, but not all is in the mirror: another command took it over, as a note above says"
"""Why a command does not succeed that lost a mirror."""


def chosen_workers(
    count: int | None, engine: str, address: str | None, item_seconds: float | None
) -> "int | RayActors | None":
    """The workers that --workers, --engine, --address and --item-timeout ask for."""
    from avbench.core import require_known

    require_known("engine", engine, ENGINES)
    if engine == "ray":
        from avbench.storage.workers.ray_actors import RayActors

        return RayActors(count, address, item_seconds)
    refuse_idle("without `--engine ray`", address=address is not None, item_timeout=item_seconds is not None)
    return count


def work_of(
    workers: "int | RayActors | None" = None,
    *,
    replace: bool = False,
    device: str = "auto",
    precision: str | None = None,
    mirrors: "Mirrors | None" = None,
) -> "Work":
    """Settings of the work for a command, checked; its notes are printed."""
    from avbench.api import work

    return work.work_of(workers, replace, CONSOLE, device, precision, mirrors)


def named_metrics(
    names: Sequence[str] | None,
    fvd_protocols: Sequence[str] | None,
    columns: str | None = None,
    fetch: "bool | Sequence[str]" = False,
) -> list["Metric"]:
    """Return the named metrics and those of a preset of columns, or the default ones, and those of FVD protocols."""
    from avbench import api
    from avbench.metrics.columns import Wanted, wanted_metrics
    from avbench.metrics.evaluate import fvd_metrics

    how = api.fetching(fetch, work_of())
    return wanted_metrics(Wanted(names, columns, fvd_metrics(fvd_protocols or ()), how), CONSOLE.note)


def allowed_to_fetch(fetch: bool, licences: Sequence[str] | None) -> "bool | Sequence[str]":
    """Whether weights are downloaded, and under which licences. --accept-licence alone is refused."""
    if not fetch:
        refuse_idle("without --fetch", accept_licence=licences)
    return licences or fetch


def opened_run(path: Path, *, reads_clips: bool = False) -> "RunView":
    """Open a run folder and note clips whose files are gone, if clips will be read."""
    from avbench.api import Work, opened

    return opened(path, Work(reporter=CONSOLE), reads_clips=reads_clips)


def opened_runs(paths: Iterable[str | Path], *, reads_clips: bool = False) -> "list[RunView]":
    """Open run folders that are shown side by side, under different names."""
    from avbench.storage.runs.folder import named_apart

    views = [opened_run(Path(path), reads_clips=reads_clips) for path in paths]
    named_apart(views)
    return views


def opened_beside(against: Path | None) -> "RunView | None":
    """The run that --against names."""
    return None if against is None else opened_run(against, reads_clips=True)


def parsed_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``name=value`` pairs, their values as `typed` reads them. Two values of one name are refused."""
    from avbench.generation.settings import typed

    parsed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            refuse(f"-M {setting!r}: write name=value")
        value = typed(text, name)
        if name in parsed and parsed[name] != value:
            several = f"-M {name}='{json.dumps([parsed[name], value], ensure_ascii=False)}'"
            refuse(f"-M {name} is given twice, and only one would count; where it takes a list write {several}")
        parsed[name] = value
    return parsed


def parsed_shard(text: str | None) -> "Shard | None":
    """The shard that --shard names."""
    from avbench.core import Shard

    return None if text is None else Shard.parse(text)


def shard_place(out: Path, shard: str | None) -> Path:
    """Return the folder for --out and --shard."""
    from avbench.api import shard_folder

    return shard_folder(out, parsed_shard(shard))


def worker_count(asked: "int | RayActors | None") -> int:
    """How many processes of this machine: as asked, or one per core."""
    from avbench.api import Work

    return Work(asked).processes


def written_plan(path: Path | None) -> "Plan":
    """The analysis plan in a file, or an empty one."""
    from avbench.comparison.plan import read

    return read(path)
