"""No name of others reaches a terminal, log, table or page with what a terminal obeys or hides."""

from __future__ import annotations

import csv
import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.cli.common import say
from wsi_ncmi.cohorts.cohort import cohort_of_columns
from wsi_ncmi.core.errors import InputError, plain_reason
from wsi_ncmi.core.files import parse_json, write_json
from wsi_ncmi.core.logging import JsonLines, _Text
from wsi_ncmi.core.pages import page_environment
from wsi_ncmi.core.progress import _RichProgress
from wsi_ncmi.core.values import holds_control, printable
from wsi_ncmi.slides.identity import shown_path
from wsi_ncmi.slides.record import SlideRecord, read_slides_csv, write_slides_csv

HIDDEN = {
    "escape": "a\x1b[31mb", "C1 sequence": "a\x9b31mb", "delete": "a\x7fb", "bell": "a\x07b", "return": "a\rb",
    "line": "a\nb", "line separator": "a\u2028b", "turned": "a\u202eb", "isolate": "a\u2066b",
    "half a pair": "a\ud800b", "no UTF-8": "a\udcffb",
}  # fmt: skip
UNSEEN = {"joiner": "a\u200db", "zero width": "a\u200bb", "mark": "a\u200fb", "tag": "a\U000e0041b"}
ODD = {**HIDDEN, **UNSEEN}
odd = pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
hidden = pytest.mark.parametrize("name", HIDDEN.values(), ids=HIDDEN.keys())
texts = st.text(st.characters(codec=None), max_size=8)


def is_plain(text: str) -> bool:
    """Nothing in it but line breaks is obeyed or hidden by a terminal."""
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@settings(max_examples=200, derandomize=True)
@given(texts)
def test_what_is_printable_stays_and_the_rest_is_an_escape(text: str) -> None:
    shown = printable(text)
    assert is_plain(shown)
    assert "\n" not in shown
    assert printable(shown) == shown
    assert shown == text or not is_plain(text) or "\n" in text


def test_letters_of_all_scripts_stay() -> None:
    for text in ("Größe 0,5 µm – 20 ×", "病理\u00a0切片", "שקופית", "ß\u0308", "🧬", ""):
        assert printable(text) == text


@odd
def test_log_lines_and_reasons(name: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "slide %s", (name,), None)
    assert is_plain(_Text("%(message)s").format(record))
    line = JsonLines().format(record)
    assert line.isascii()
    assert is_plain(line)
    assert json.loads(line)["message"] == f"slide {name}"
    assert is_plain(plain_reason(ValueError(f"{name}: no TIFF"), Path("a.svs")))


@odd
def test_what_the_command_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"ok: {name}")
    assert capsys.readouterr().out == f"ok: {printable(name)}\n"


@odd
def test_wrong_arguments(name: str) -> None:
    for arguments in (["verify", name], ["losses", name], [name], ["losses", f"--{name}"], ["run", name]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert is_plain(result.stderr)
        assert "\\" in result.stderr


@odd
def test_json_files_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {name: [name, "Größe"]})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert is_plain(text)
    assert parse_json(text) == {name: [name, "Größe"]}


@odd
def test_pages(name: str) -> None:
    template = page_environment("wsi_ncmi.reporting").from_string("<p title='{{ name }}'>{{ name }}</p>")
    page = template.render(name=name)
    assert is_plain(page)
    assert ("\\" in page) == (name != HIDDEN["line"])


@hidden
def test_a_slide_of_such_a_name_is_shown_and_not_worked_on(name: str) -> None:
    name = name.replace("\ud800", "\udcfe")  # file systems give no others
    shown, fault = shown_path(f"{name}.svs")
    assert is_plain(shown)
    assert "\n" not in shown
    assert fault in ("holds a control character", "is not valid UTF-8")


@pytest.mark.parametrize("name", UNSEEN.values(), ids=UNSEEN.keys())
def test_an_id_with_joiners_is_joined_as_it_is_written(name: str, tmp_path: Path) -> None:
    """Persian and Indian scripts need them; tables keep them, texts beside show them."""
    assert shown_path(f"{name}.svs") == (f"{name}.svs", "")
    record = SlideRecord(name, f"{name}.svs", "", "", 0, 0, 0, None, None, "", "", 0, f"{name} is no slide")
    write_slides_csv([record], tmp_path / "slides.csv")
    (found,) = read_slides_csv(tmp_path / "slides.csv")
    assert (found.slide_id, found.path) == (name, f"{name}.svs")
    assert found.problem == printable(f"{name} is no slide")


@hidden
@pytest.mark.parametrize("column", ["slide_id", "label", "case_id", "centre"])
def test_labels_of_such_names_are_refused(name: str, column: str, tmp_path: Path) -> None:
    values = {"slide_id": "s1", "case_id": "p1", "label": "A", "centre": "c", column: name}
    rows = [values, {"slide_id": "s2", "case_id": "p2", "label": "B", "centre": "c"}]
    assert holds_control(name)
    columns = {key: [row[key] for row in rows] for key in values}
    with pytest.raises(InputError, match=f"the {column} .* holds a control character"):
        cohort_of_columns(
            Path("f.npz"), columns["slide_id"], columns["label"], columns["case_id"], columns["centre"], None
        )
    if any(0xD800 <= ord(c) < 0xE000 for c in name):
        return  # no table in UTF-8 holds it
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, values)
        writer.writeheader()
        writer.writerows(rows)
    result = CliRunner().invoke(
        app, ["split", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "s.json")]
    )
    assert result.exit_code == 2
    assert f"row 2: the {column} " in result.stderr or f"row 3: the {column} " in result.stderr
    assert is_plain(result.stderr)


def test_a_slides_name_is_no_markup_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setenv("COLUMNS", "200")
    with _RichProgress().task("Slides [red]of[/red] \x1b[31m", 2, "slides") as task:
        task.advance(note="[red]x[/red].svs")
        task.advance(note="[/nothing]\x1b[31m\u202e.svs")
    text = drawn.getvalue()
    assert "Slides [red]of[/red] \\x1b[31m" in text
    assert "[/nothing]\\x1b[31m\\u202e.svs" in text
