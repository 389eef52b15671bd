"""What is each metric, exactly? Writes docs/metrics.md from the code, with the cost of each feature on this machine.

    python benchmarks/metric_reference.py

A feature's cost is the median of five clips of the embedded world (64×64, 16 frames, 2 s of sound), on one thread.
"""

import inspect
import re
import statistics
import textwrap
import time
from pathlib import Path

from avbench.core import Direction, InputError, NotMeasurable, resolve
from avbench.features.measure import requires
from avbench.features.table import FEATURES, Requires
from avbench.metrics.table import METRICS, Metric
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
COSTS = Path(__file__).parent / "costs.csv"
BETTER = {
    Direction.HIGHER: "higher",
    Direction.LOWER: "lower",
    Direction.BAND: "as the reference",
    Direction.NEITHER: "neither",
}


def costs() -> dict[str, float]:
    """Milliseconds a clip, by feature, of those that can run here."""
    known = {}
    scenes = loading.load("toy-object-contact").prompts[:5]
    clips = [(make_clip(Scene.from_json(prompt.tags["scene"]), 0)[0], prompt) for prompt in scenes]
    for name, place in FEATURES.items():
        kind = resolve(place)
        try:
            look = kind()
        except InputError:
            continue
        seconds = []
        for clip, prompt in [clips[0], *clips]:
            shown = {
                Requires.CLIP: (clip,),
                Requires.PROMPT: (clip, prompt),
                Requires.REFERENCE_CLIP: (clip, clip),
                Requires.SEEDS: ([clip, clip],),
            }
            start = time.perf_counter()
            try:
                look(*shown[requires(name)])
            except NotMeasurable:
                break
            seconds.append(time.perf_counter() - start)
        else:
            known[name] = 1000 * statistics.median(seconds[1:])
    return known


def page(known: dict[str, float]) -> str:
    """The page as markdown."""
    parts = [
        "# Every metric",
        "Written by `python benchmarks/metric_reference.py` from the code. *As the reference* means: should come to "
        "what the reference's clips come to; neither more nor less is better. What a metric sees, and what it is blind "
        "to, is in [known-bad.md](known-bad.md).",
    ]
    for feature in FEATURES:
        of_feature = [metric for metric in METRICS if metric.feature == feature]
        if of_feature:
            parts += [f"## Of the feature `{feature}`", _feature(feature, known.get(feature))]
            parts += [_metric(metric) for metric in of_feature]
    return "\n\n".join(parts) + "\n"


def _feature(name: str, milliseconds: float | None) -> str:
    place = FEATURES[name]
    kind = resolve(place)
    module = inspect.cleandoc(resolve(f"{place.split(':')[0]}:__doc__") or "")
    shown = {
        Requires.CLIP: "a clip",
        Requires.PROMPT: "a clip and its prompt",
        Requires.REFERENCE_CLIP: "a clip and its prompt's reference clip",
        Requires.SEEDS: "all clips of a prompt",
    }[requires(name)]
    cost = f"{milliseconds:.3g} ms a clip" if milliseconds else "not measured: its weights are not here"
    return f"Needs {shown}. Cost: {cost}.\n\n{_quoted(module)}\n\n{_quoted(inspect.getdoc(kind) or '')}"


def _metric(metric: Metric) -> str:
    function = resolve(metric.function)
    lines = [
        f"### `{metric.name}`",
        f"{metric.question}",
        f"- **Better**: {BETTER[metric.direction]}. **Range**: {_range(metric)}.",
        f"- **Formula**: {_paragraphs(inspect.getdoc(function) or '')}",
    ]
    if metric.settings:
        lines.append(f"- **Settings**: {', '.join(f'{name} = {value}' for name, value in metric.settings.items())}.")
    needs = [f"`{metric.feature}`", *([f"`{metric.beside}`"] if metric.beside else [])]
    if metric.column:
        needs.append(f"a reference's `{metric.reference_column or metric.column}`")
    lines.append(f"- **Needs**: {', '.join(needs)}.")
    if metric.unable != Metric.unable:
        lines.append(f"- **Clips it cannot measure**: {metric.unable}.")
    return "\n".join([lines[0], "", lines[1], "", *lines[2:]])


def _range(metric: Metric) -> str:
    least, most = metric.bounds
    if least is None:
        return "any number"
    return (
        f"{least:g} to {most:g} {metric.unit}".rstrip()
        if most is not None
        else f"{least:g} {metric.unit}".rstrip() + " or more"
    )


def _paragraphs(docstring: str) -> str:
    """What comes before arguments and errors, in one line."""
    return " ".join(re.split(r"^(?:Args|Raises|Returns):", docstring, flags=re.MULTILINE)[0].split())


def _quoted(text: str) -> str:
    return textwrap.indent(text, "> ", lambda line: True).replace("> \n", ">\n")


def main() -> None:
    """Measure, and write."""
    known = costs()
    COSTS.write_text("feature,milliseconds\n" + "".join(f"{name},{value:.3g}\n" for name, value in known.items()))
    PAGE.write_text(page(known))


if __name__ == "__main__":
    main()
