"""Renders the checks of the gate for the console, for CI systems (JUnit XML), and for pull requests."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from avbench.comparison.gate import Verdict
from avbench.core import counted, visible
from avbench.report.tables import escaped, p_value


def console(verdicts: Sequence[Verdict], width: int) -> Table:
    """Return a rich table with one row per check, for a console of this width. Names break between words alone, where
    half of the width holds the longest word.
    """
    names = [one.name for one in verdicts]
    whole, word = (max(map(cell_len, some)) for some in (names, " ".join(names).split()))
    size = whole if 3 * whole <= width else word if 2 * word <= width else None
    name = Column("check", width=size, overflow="fold")  # names are never cut
    found = Column("found", overflow="fold")
    table = Table(name, "", "p", found, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    styles = {"failed": "bold red", "not compared": "bold red", "skipped": "yellow", "note": "yellow", "ok": "green"}
    for one in verdicts:
        table.add_row(Text(one.name), Text(_mark(one), styles[_mark(one)]), _p(one), Text(_found(one)))
    return table


def failures(verdicts: Sequence[Verdict]) -> str | None:
    """How many of the checks failed, and how many could not be made, in words; None if all passed."""
    failed, unmade = (sum(one.failed and one.compared is compared for one in verdicts) for compared in (True, False))
    of_all = f"of {counted(sum(not one.note and not one.skipped for one in verdicts), 'check')}"
    if failed:
        return f"{failed} {of_all} failed" + (f", {unmade} could not be made" if unmade else "")
    return f"{unmade} {of_all} could not be made" if unmade else None


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return a markdown table for a pull request or a job summary."""
    unchecked = sum(one.skipped for one in verdicts)
    also = f", {unchecked} not checked" if unchecked else ""
    lines = [f"**avbench check: {failures(verdicts) or 'passed'}{also}**", ""]
    lines += ["| check | | p | found |", "|---|---|--:|---|"]
    for one in verdicts:
        mark = f"**{_mark(one)}**" if one.failed else _mark(one)
        lines.append(f"| {escaped(one.name)} | {mark} | {_p(one)} | {escaped(_found(one))} |")
    return "\n".join([*lines, "", "p is one-sided, after Holm over all checks: worse by more than the margin?", ""])


def annotations(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a GitHub workflow command for each failed check and each note."""
    for one in verdicts:
        if level := "error" if one.failed else "warning" if one.note else None:
            yield f"::{level} title={_command(one.name, more=':,')}::{_command(one.message)}"


def junit(verdicts: Sequence[Verdict]) -> str:
    """Return JUnit XML with one test case per check. What was not compared is skipped; the exit code still fails."""
    counts = {
        "failures": sum(one.failed and one.compared for one in verdicts),
        "skipped": sum(one.skipped or not one.compared for one in verdicts),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    suite = ET.Element("testsuite", {"name": "avbench check", "tests": str(len(verdicts)), **numbers})
    for one in verdicts:
        case = ET.SubElement(suite, "testcase", classname="avbench.check", name=visible(one.name))
        message = visible(one.message)  # XML has no control characters, not even escaped
        if one.failed and one.compared:
            ET.SubElement(case, "failure", message=message).text = message
        elif one.skipped or not one.compared:
            ET.SubElement(case, "skipped", message=message)
        else:
            ET.SubElement(case, "system-out").text = message
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def _mark(one: Verdict) -> str:
    if one.failed:
        return "failed" if one.compared else "not compared"
    return "note" if one.note else "skipped" if one.skipped else "ok"


def _found(one: Verdict) -> str:
    """What was found, without the words that the mark beside it has."""
    return one.message.removeprefix("not compared: ")


def _p(one: Verdict) -> str:
    return "" if one.p is None else p_value(one.p)


def _command(text: str, more: str = "") -> str:
    """Escape text as a GitHub workflow command needs it."""
    text = visible(text)
    for letter in f"%\r\n{more}":
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
