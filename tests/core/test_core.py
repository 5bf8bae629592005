"""Errors, options, atomic files, progress and provenance."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.core import progress
from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import (
    atomic_path,
    distinct_file_names,
    ensure_folder,
    parse_json,
    path_safe,
    sha256_file,
    shortened,
    write_json,
)
from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.core.provenance import collect_provenance


@configclass
class Example:
    """Options of the tests."""

    size: int = 3


def test_options_refuse_unknown_keys_and_stay_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="colour"):
        Example(colour="red")  # type: ignore[call-arg]
    with pytest.raises(pydantic.ValidationError):
        Example(size="many")  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"frozen|assign"):
        Example().size = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1e400", "too large"),
        ("-1" + "0" * 30, "too large"),
        ("9" * 5000, "too large"),
        (str(2**63), "too large"),
        (b"\xff\xfe\x00", "decode"),
        ("", "Expecting value"),
    ],
)
def test_json_without_bounds_is_no_json(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_within_bounds_is_read_as_ever() -> None:
    text = json.dumps({"a": [1, -2.5e300, 2**63 - 1, -(2**63) + 1, None, True, float("nan"), "µ"], "b": {}})
    assert repr(parse_json(text)) == repr(json.loads(text))


def test_atomic_path_leaves_nothing_behind_when_the_block_raises(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted_write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        interrupted_write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_writer_never_leaves_the_final_name(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from wsi_ncmi.core.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    target = tmp_path / "b.txt"
    result = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert result.returncode == -9
    assert not target.exists()


def test_json_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_ensure_folder_names_the_folder_and_the_reason(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    with pytest.raises(InputError, match=r"file/out.*can't be written to.*--out"):
        ensure_folder(blocker / "out")


@given(st.text(min_size=1))
def test_path_safe_never_leaves_a_separator(name: str) -> None:
    assert set(path_safe(name)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert path_safe("torchvision:squeezenet1_1") == "torchvision_squeezenet1_1"


@pytest.mark.parametrize(
    ("name", "safe"),
    [("..", "__"), (".", "_"), ("", "_"), ("a.", "a_"), ("a.b", "a.b"), ("con", "_con"), ("Aux.x", "_Aux.x"), ("cons", "cons")],
)  # fmt: skip
def test_path_safe_is_a_name_on_every_system(name: str, safe: str) -> None:
    assert path_safe(name) == safe


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (("attention", "evidence tumour"), ("attention", "evidence_tumour")),  # as 0.1.0 named them
        (("腺癌", "鱗状細胞癌", "größe", "опухоль"), ("腺癌", "鱗状細胞癌", "größe", "опухоль")),
        (("T1+", "T1?", "T1"), ("T1-plus-sign", "T1-question-mark", "T1")),
        (("a b", "a_b"), ("a_b-c8687a08", "a_b-648fa9b3")),
        (("Tumour", "tumour"), ("Tumour-250dd337", "tumour-047090da")),
        (("\u00e9", "e\u0301"), ("\u00e9-4a99557e", "\u00e9-bf12767b")),  # one letter, two forms
        (("../x", "con"), (".._x", "con")),
        ((), ()),
    ],
)
def test_names_of_files_differ_where_names_do(names: tuple[str, ...], files: tuple[str, ...]) -> None:
    assert tuple(distinct_file_names(names).values()) == files


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.text(st.sampled_from("aAbß+?/.\\ _-\x00癌\u0301 "), min_size=1, max_size=4), unique=True))
def test_no_two_names_share_a_file(names: list[str]) -> None:
    files = distinct_file_names(names)
    assert len({unicodedata.normalize("NFC", file).casefold() for file in files.values()}) == len(names)
    assert not any(set(file) & set('/\\\x00:*?"<>| ') for file in files.values())


def test_a_long_name_keeps_its_beginning_and_stays_unlike_others() -> None:
    files = distinct_file_names(("癌" * 90 + "a", "癌" * 90 + "b"))
    assert all(file.startswith("癌" * 30) and len(file.encode()) <= 100 for file in files.values())
    assert len(set(files.values())) == 2
    assert shortened("a" * 20, 20) == "a" * 20
    assert shortened("a" * 21, 20).startswith("a" * 11 + "-")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x").startswith("ba7816bf")


def test_provenance_is_json_and_holds_no_path_or_host() -> None:
    text = json.dumps(collect_provenance())
    assert os.path.sep + "home" not in text
    assert os.uname().nodename not in text
    found = collect_provenance()
    assert found["packages"]["torch"] != "missing"
    assert found["cpu"]
    assert 0.1 < found["memory_gib"] < 100_000


def test_progress_off_the_terminal_logs_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wsi_ncmi"), progress_for().task("slides", 2, "slides") as task:
        task.advance()
        task.advance()
    assert "2/2 slides" in caplog.text
    assert "s left" in caplog.text


def test_time_left_is_starting_until_a_rate_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    pace = progress._Pace(600)
    assert pace.left == "starting"
    now = 30.0  # what has to be loaded first
    for _ in range(5):
        now += 0.5
        pace.add(1, done_before=False)
        assert pace.left == "starting"
    now += 0.5
    pace.add(1, done_before=False)
    assert pace.left == "297 s left"  # at two a second, whatever the start took
    pace.add(594, done_before=True)
    assert pace.left == "0 s left"


def test_time_left_of_a_few_long_units_is_known_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    pace = progress._Pace(5)
    told = []
    for _ in range(5):
        now += 60
        pace.add(1, done_before=False)
        told.append(pace.left)
    assert told == ["starting", "180 s left", "120 s left", "60 s left", "0 s left"]


def test_quiet_progress_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wsi_ncmi"), progress_for(quiet=True).task("x", 1) as task:
        task.advance()
    assert not caplog.text
