"""What a file says is shown, and does nothing: in the terminal, in spreadsheets, in CI systems, in tables."""

import math
import sys
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from rich.table import Table

from avbench import cli
from avbench.comparison.gate import Verdict
from avbench.core import InputError, beside_limit, csv_text, listed, one_line, spreadsheet_cell, visible
from avbench.report import checks, latex, tables

EVIL = "a\x1b[31m\x07\x9b2J[bold]x[/nope]\u202e\r\nb\ud800\uffff\0"


def test_control_characters_are_named_and_the_rest_stays():
    assert visible("ä × 漢 🎬\n\t") == "ä × 漢 🎬\n\t"
    assert visible(EVIL) == "a\\x1b[31m\\x07\\x9b2J[bold]x[/nope]\\u202e\\x0d\nb\\ud800\\uffff\\x00"
    assert one_line("a\n\n\tb") == "a b"
    assert visible(visible(EVIL)) == visible(EVIL)
    marks = (0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    assert [visible(chr(mark)) for mark in marks] == [f"\\u{mark:04x}" for mark in marks]


def test_the_first_few_are_listed_and_the_others_counted():
    assert listed([]) == "" and listed("abc") == "a, b, c"
    assert listed(iter("abcde")) == "a, b, c and 2 more" and listed("abcde", 1) == "a and 4 more"


def test_a_number_never_reads_as_the_limit_that_it_misses():
    assert beside_limit(1.9375, 2) == "1.938" and beside_limit(119.96, 100) == "120"
    assert beside_limit(30.0016, 30) == "30.002" and beside_limit(999.96, 1000) == "999.96"
    assert beside_limit(math.nextafter(2, 0), 2) == "1.9999999999999998"
    assert beside_limit(4.8, 4.8) == "4.8"  # that of picture and sound which is long enough


def test_the_terminal_gets_no_codes_and_no_markup(capsys, monkeypatch):
    console = cli.printing.terminal()
    table = Table("head [red]", title="t [/]")
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    cli.printing.print_line(EVIL)
    cli.printing.print_line(EVIL, err=True)
    output = "".join(capsys.readouterr())
    assert "\x1b" not in output and "\x9b" not in output and "\u202e" not in output
    assert "[bold]" in output and "head [red]" in output and "[/nope]" in output


def test_colours_of_our_own_stay(monkeypatch):
    from rich.console import ColorSystem
    from rich.text import Text

    console = cli.printing.terminal()
    console._color_system, console.no_color = ColorSystem.STANDARD, False
    with console.capture() as caught:
        console.print(Text("good\x1b[31m", "bold"))
    assert caught.get() == "\x1b[1mgood\\x1b[31m\x1b[0m\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("＝1", "'＝1"),
        ("-0.5", "-0.5"),
        ("+1e3", "+1e3"),
        ("-0.124 ± 0.039", "-0.124 ± 0.039"),
        ("-58.6†", "-58.6†"),
        ("-0.124 ± 0.039‡†", "-0.124 ± 0.039‡†"),
        ("-1 ± A1", "'-1 ± A1"),
        ("-1 ± =2", "'-1 ± =2"),
        ("-†", "'-†"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_cell_is_no_formula(text, cell):
    assert spreadsheet_cell(text) == cell


def test_a_table_as_csv_keeps_its_numbers():
    frame = pd.DataFrame({"name": ["=1", None, "b"], "value": [-1.5, float("nan"), 2.0], "mark": [None, None, None]})
    assert csv_text(frame) == "name,value,mark\n'=1,-1.5,\n,,\nb,2.0,\n"


def test_junit_is_xml_and_annotations_are_one_line():
    verdicts = [Verdict(EVIL, True, EVIL), Verdict("ok", False, EVIL)]
    suite = ET.fromstring(checks.junit(verdicts))
    assert [case.get("name") for case in suite] == [visible(EVIL), "ok"]
    (line,) = checks.annotations(verdicts)
    assert line.startswith("::error title=") and "\n" not in line and "\x1b" not in line


def test_a_markdown_table_stays_one():
    cell = "a|b\nc\\|d<img src=x>![p](http://x)[l](http://y)"
    table = tables.SubsetTable("s\n# head", [cell, "b"], [(cell, [tables.Cell(cell), tables.Cell("x")])], [cell])
    lines = tables.set_as_markdown([table], "legend").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 3
    for row in (rows[0], rows[2]):
        assert row.replace("\\\\", "").replace("\\|", "").count("|") == 4, row
    text = "\n".join(lines)
    assert "<img" not in text and "![" not in text and "](" not in text and "\n# head" not in text
    assert "\n" not in latex.escaped_for_latex(cell)


def run_main(monkeypatch, capsys, error, *words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(cli.program, "app", fail)
    monkeypatch.setattr(sys, "argv", ["avbench", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err


def test_every_error_is_a_sentence_and_debug_shows_where(monkeypatch, capsys):
    assert run_main(monkeypatch, capsys, InputError("no\x1b such")) == (2, "avbench: no\\x1b such\n")
    code, output = run_main(monkeypatch, capsys, PermissionError(13, "Permission denied", "/out/x"))
    assert (code, output) == (2, "avbench: /out/x: Permission denied\n")
    error = ImportError("libxcb.so.1: cannot open shared object file: No such file or directory")
    code, output = run_main(monkeypatch, capsys, error)
    assert code == 2 and output.startswith("avbench: the system's library libxcb.so.1 is missing; ")
    error = KeyError("seeds")
    error.add_note("while x measured y")
    code, output = run_main(monkeypatch, capsys, error)
    assert code == 70 and output.count("\n") == 1
    assert output.startswith("avbench: KeyError: 'seeds' (while x measured y): this was not foreseen")
    code, output = run_main(monkeypatch, capsys, error, "compare", "--debug")
    assert code == 70 and "Traceback" in output and "avbench: KeyError" in output


def test_debug_is_taken_out_before_the_verbs_see_it(monkeypatch):
    seen = []
    monkeypatch.setattr(cli.everyday, "print_list", lambda *words: seen.append(words))
    monkeypatch.setattr(sys, "argv", ["avbench", "list", "--debug", "models"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and len(seen) == 1
