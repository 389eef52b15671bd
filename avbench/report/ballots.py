"""Renders the results of blind votes for the console: who won against whom, strengths, and sentences."""

import pandas as pd
from rich.console import Group
from rich.text import Text

from avbench.comparison import votes as ballots
from avbench.report.tables import titled


def console(votes: pd.DataFrame) -> Group:
    """Return the results of `votes.read` for the console."""
    met = titled(Text("Blind votes", style="bold"), "run", "against")
    for column in ("won", "tied", "lost", "votes", "prompts"):
        met.add_column(column, justify="right")
    for _, row in ballots.pairs(votes).iterrows():
        met.add_row(*(Text(str(row[column.header])) for column in met.columns))
    strong = titled(Text("Bradley–Terry strengths, ties as half", style="bold"), "run")
    for column in ("strength", "95 % interval", "votes", "group"):
        strong.add_column(column, justify="right")
    for one in ballots.strengths(votes):
        strong.add_row(Text(one.run), *strength_cells(one), str(one.votes), str(one.group + 1))
    return Group(met, strong, *(Text(one, style="dim") for one in ballots.remarks(votes)))


def strength_cells(one: ballots.Strength) -> tuple[str, str]:
    """A strength and its interval as text."""
    interval = "–" if one.low is None or one.high is None else f"{one.low:+.2f} … {one.high:+.2f}"
    return ("–" if one.value is None else f"{one.value:+.2f}"), interval
