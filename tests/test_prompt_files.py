"""Prompts files of every form, with and without a byte order mark, and what is said of wrong ones."""

import codecs
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avbench.core import InputError
from avbench.subsets.loading import from_prompts_file
from avbench.subsets.prompt_files import read_any, read_prompts

TEXTS = {
    "a.jsonl": '{"id": "x", "caption": "a dog"}\n{"id": "y", "text": "a cat", "audio_caption": "purring"}\n',
    "a.json": '[{"id": "x", "prompt": "a dog"}, {"id": "y", "video_caption": "a cat", "audio_caption": "purring"}]',
    "a.csv": 'ID,Prompt,audio_caption\nx,a dog,\n"y","a cat",purring\n',
    "semicolons.csv": "id;caption;audio_caption\nx;a dog;\ny;a cat;purring\n",
    "of_excel.csv": "sep=;\nid;caption;audio_caption\nx;a dog;\ny;a cat;purring\n",
    "capitals.jsonl": '{"ID": "x", "Prompt": "a dog"}\n{"Id": "y", "TEXT": "a cat", "Audio_Caption": "purring"}\n',
}


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "bom"])
@pytest.mark.parametrize("name", TEXTS)
def test_prompts_with_ids(name, mark, tmp_path):
    (tmp_path / name).write_bytes(mark + TEXTS[name].encode())
    x, y = from_prompts_file(tmp_path / name).prompts
    assert (x.id, x.video_caption, x.audio_caption) == ("x", "a dog", None)
    assert (y.id, y.video_caption, y.audio_caption) == ("y", "a cat", "purring")


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "text"), [*TEXTS.items(), ("a.txt", "a dog")])
def test_prompts_in_utf_16_are_refused(name, text, code, tmp_path):
    """Without a byte order mark, English in UTF-16 is valid UTF-8 with a NUL beside every letter."""
    (tmp_path / name).write_bytes(text.encode(code))
    reason = {"txt": "UTF-16", "csv": "no column of prompts"}.get(name.rpartition(".")[2], "not JSON at column")
    with pytest.raises(
        InputError, match="not UTF-8: byte 1 is .*; save the file as UTF-8" if code == "utf-16" else reason
    ):
        from_prompts_file(tmp_path / name)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "bom"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "a dog, running\r\n\na cat\n"),
        ("a.csv", 'prompt\n"a dog, running"\na cat\n'),
        ("b.csv", '"a dog, running"\na cat'),
        ("a.json", json.dumps(["a dog, running", "a cat"])),
    ],
)
def test_prompts_without_ids_are_numbered(name, text, mark, tmp_path):
    (tmp_path / name).write_bytes(mark + text.encode())
    found = from_prompts_file(tmp_path / name).prompts
    assert [(one.id, one.video_caption) for one in found] == [("p0001", "a dog, running"), ("p0002", "a cat")]


def test_parquet(tmp_path):
    table = {"id": [1, 2], "prompt": ["a dog", "a cat"], "audio_caption": [None, "purring"], "place": ["park", None]}
    pd.DataFrame(table).to_parquet(tmp_path / "a.parquet")
    one, two = from_prompts_file(tmp_path / "a.parquet").prompts
    assert (one.id, one.audio_caption, one.tags) == ("1", None, {"place": "park"})
    assert (two.id, two.audio_caption, two.tags) == ("2", "purring", {})
    latin = pa.array([b"caf\xe9"]).view(pa.string())  # parquet's own check of text is not on
    pq.write_table(pa.table({"prompt": latin}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet is no readable parquet file: 'utf-8' codec can't decode"):
        from_prompts_file(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "name,colour\nx,red\n", "line 1: no column of prompts among name, colour; name one of them"),
        ("a.csv", "id,prompt\nx,a dog, running\n", "line 2: 3 columns instead of 2"),
        ("a.csv", "id,prompt\nx,a dog\nx,a cat\n", "line 3: the id 'x' occurs twice; first in line 2"),
        ("a.csv", 'id,prompt\np1,"A dog barks\np2,A cat\n', "line 3: a text in quotes has no closing quote"),
        (
            "a.csv",
            'id;prompt\np1;"Hello" says a man\n',
            "line 2: text follows a closing quote; inside a text in quotes",
        ),
        ("a.csv", "prompt,Prompt\nA,B\n", "line 1: the column 'prompt' occurs twice"),
        ("a.csv", "id,audio_prompt\nx,barking\n", "line 2: no video caption; name it one of video_caption"),
        ("a.json", '{"prompt": "a dog"}', "must be a list of objects or of strings"),
        (
            "a.jsonl",
            '{"id": "x", "ID": "y", "prompt": "a"}',
            "line 1: the field 'id' occurs twice, in small and in capital",
        ),
        ("a.json", '["a dog", 3]', "entry 2: a prompt must be a JSON object"),
        ("a.jsonl", '{"id": "x", "prompt": "a"}\n{"prompt": "b"}', "line 2: the field 'id' is missing"),
        ("a.txt", "\n\n", "it holds no prompts"),
        ("a.parquet", "no", "no readable parquet file"),
        ("a.jsnl", "{}", "did you mean '.jsonl'"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as wrong:
        from_prompts_file(tmp_path / name)
    assert name in str(wrong.value) and words in str(wrong.value)


def test_a_null_does_not_hide_another_name_of_the_same_field(tmp_path):
    lines = ('{"id": "a", "caption": null, "text": "a dog"}', '{"id": "b", "prompt": NaN, "text": "a cat"}')
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    for read in (read_any, read_prompts):
        prompts = read(tmp_path / "p.jsonl")
        assert [(one.video_caption, one.tags) for one in prompts] == [("a dog", {}), ("a cat", {})]


def test_a_second_caption_stays_a_tag(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,caption,audio_caption\nA,B,C\n")
    (one,) = read_any(tmp_path / "p.csv")
    assert (one.video_caption, one.audio_caption, one.tags) == ("A", "C", {"caption": "B"})


def test_only_line_breaks_end_a_prompt_of_a_text_file(tmp_path):
    (tmp_path / "p.txt").write_bytes("a\u2028b\u0085c\x0bd\x0ce\r\nf\rg\n".encode())
    assert [one.video_caption for one in read_any(tmp_path / "p.txt")] == ["a\u2028b\u0085c\x0bd\x0ce", "f", "g"]
