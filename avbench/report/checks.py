"""How is a check read? On the console, by CI systems (JUnit XML), on a pull request (annotations, markdown)."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from avbench.core import visible
from avbench.gate import Verdict
from avbench.report.tables import escaped, p_value


def console(verdicts: Sequence[Verdict]) -> Table:
    """A row a check, for rich."""
    table = Table("check", "", "p", "found", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for one in verdicts:
        mark = Text("failed", "bold red") if one.failed else Text("ok", "green")
        table.add_row(Text(one.name), mark, _p(one), Text(one.told))
    return table


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A table for a pull request or a job summary."""
    failed = sum(verdict.failed for verdict in verdicts)
    lines = [f"**avbench check: {f'{failed} of {len(verdicts)} failed' if failed else 'passed'}**", ""]
    lines += ["| check | | p | found |", "|---|---|--:|---|"]
    lines += [
        f"| {escaped(one.name)} | {'**failed**' if one.failed else 'ok'} | {_p(one)} | {escaped(one.told)} |"
        for one in verdicts
    ]
    return "\n".join([*lines, "", "p is one-sided, after Holm over all checks: worse by more than the margin?", ""])


def annotations(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """GitHub's workflow commands, for the failed checks."""
    for one in verdicts:
        if one.failed:
            yield f"::error title={_command(one.name, more=':,')}::{_command(one.told)}"


def junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: a test case a check."""
    failed = str(sum(verdict.failed for verdict in verdicts))
    suite = ET.Element("testsuite", name="avbench check", tests=str(len(verdicts)), failures=failed)
    for one in verdicts:
        case = ET.SubElement(suite, "testcase", classname="avbench.check", name=visible(one.name))
        told = visible(one.told)  # XML has no control characters, not even escaped
        if one.failed:
            ET.SubElement(case, "failure", message=told).text = told
        else:
            ET.SubElement(case, "system-out").text = told
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def _p(one: Verdict) -> str:
    return "" if one.p is None else p_value(one.p)


def _command(text: str, more: str = "") -> str:
    """Escaped as the runner decodes it."""
    text = visible(text)
    for letter in f"%\r\n{more}":
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
