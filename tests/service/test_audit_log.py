"""The audit trail: a chain of hashes that shows what was changed, and that survives kills and full disks."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.service import AuditLog, check_audit_log

START = "0" * 64


def lines(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines(True)]


def follows(folder: Path) -> list[dict[str, Any]]:
    """The entries, proven by the documented rule alone: another reader than the program's own."""
    entries, prev = [], START
    for number, line in enumerate(lines(folder), 1):
        entry = json.loads(line)
        text = line.decode().rstrip("\n")
        body = text.replace(f', "sha256": "{entry["sha256"]}"', "")
        assert hashlib.sha256(body.encode()).hexdigest() == entry["sha256"]
        assert (entry["prev"], entry["seq"]) == (prev, number)
        prev = entry["sha256"]
        entries.append(entry)
    return entries


def fill(folder: Path, count: int, **settings: Any) -> None:
    with AuditLog(folder, **settings) as log:
        for number in range(count):
            log.append("answer", slide_id=f"s{number}ä", value=number / 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "log", 6, max_bytes=900)
    return tmp_path / "log"


def test_the_chain_goes_on_over_files_and_restarts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(path.name for path in folder.glob("*.jsonl"))
    assert names == ["audit-000001.jsonl", "audit-000002.jsonl", "audit-000003.jsonl"]
    assert all((folder / name).stat().st_size <= 900 for name in names)
    monkeypatch.setenv("WSI_NCMI_OPERATOR", "pathology, bench 2")
    seen: list[Any] = []
    with AuditLog(folder, seen.append) as log:
        assert (log.entries, [each["slide_id"] for each in seen]) == (6, [f"s{i}ä" for i in range(6)])
        entry = log.append("answer", slide_id="later")
    entries = follows(folder)
    assert entries[-1] == entry
    assert [each["operator"] for each in entries] == [""] * 6 + ["pathology, bench 2"]
    check = check_audit_log(folder)
    assert (check.entries, check.files, check.head, check.problem) == (7, 3, entry["sha256"], "")
    assert check_audit_log(folder, entries[2]["sha256"]) == check


def edit(folder: Path, row: int, new: bytes | None, *, before: bool = False) -> None:
    """Replaces or removes (None) the row-th line of all files, or puts one before it."""
    for path in sorted(folder.glob("*.jsonl")):
        own = path.read_bytes().splitlines(True)
        if row < len(own):
            own[row : row + (not before)] = [] if new is None else [new]
            path.write_bytes(b"".join(own))
            return
        row -= len(own)


def sealed(entry: dict[str, Any], **changes: Any) -> bytes:
    """A forged line with a hash of its own that is right."""
    body = json.dumps({**{name: value for name, value in entry.items() if name != "sha256"}, **changes})
    return f'{body[:-1]}, "sha256": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


def tampered(kind: str, folder: Path) -> str:
    own = lines(folder)
    entries = follows(folder)
    first = sorted(folder.glob("*.jsonl"))[0]
    if kind == "a value":
        edit(folder, 1, own[1].replace(b'"value": ', b'"value": 1'))
        return "audit-000001.jsonl, line 2 was changed"
    if kind == "a value and its hash":
        edit(folder, 1, sealed(entries[1], value=3))
        return "audit-000002.jsonl, line 1 does not follow"
    if kind == "a line less":
        edit(folder, 0, None)
        return "audit-000001.jsonl, line 1 does not follow"
    if kind == "a line more":
        edit(folder, 1, own[0], before=True)
        return "audit-000001.jsonl, line 2 does not follow"
    if kind == "two lines exchanged":
        first.write_bytes(own[1] + own[0])
        return "audit-000001.jsonl, line 1 does not follow"
    if kind == "no JSON":
        edit(folder, 3, b"x\n")
        return "audit-000002.jsonl, line 2 is no entry"
    if kind == "another schema":
        edit(folder, 0, sealed(entries[0], schema="wsi-ncmi-audit/9"))
        return "audit-000001.jsonl, line 1 has the schema 'wsi-ncmi-audit/9'"
    if kind == "torn in the middle":
        first.write_bytes(first.read_bytes()[:-9])
        return "audit-000001.jsonl, line 2 is no entry"
    if kind == "the first file":
        first.unlink()
        return "audit-000001.jsonl is missing"
    (folder / "audit-000002.jsonl").unlink()
    return "audit-000002.jsonl is missing"


KINDS = (
    "a value", "a value and its hash", "a line less", "a line more", "two lines exchanged", "no JSON",
    "another schema", "torn in the middle", "the first file", "a file between",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_broken_line_is_named(folder: Path, kind: str) -> None:
    words = tampered(kind, folder)
    check = check_audit_log(folder)
    assert check.problem.startswith(words)
    before = lines(folder)
    with pytest.raises(InputError, match="keep it for the inquiry"):
        AuditLog(folder)
    assert lines(folder) == before
    ended = CliRunner().invoke(app, ["audit-log", "verify", str(folder)])
    assert ended.exit_code == 1
    assert words in ended.stdout


def test_a_cut_off_end_is_found_by_a_hash_noted_before(folder: Path) -> None:
    head = check_audit_log(folder).head
    edit(folder, 5, None)
    assert check_audit_log(folder).problem == ""
    assert "the end was cut off" in check_audit_log(folder, head).problem


def test_the_verb(folder: Path, tmp_path: Path) -> None:
    head = check_audit_log(folder).head
    run = CliRunner().invoke
    told = run(app, ["audit-log", "verify", str(folder), "--head", head])
    assert (told.exit_code, told.stdout) == (0, f"Whole: 6 entries in 3 files, head {head}.\n")
    assert run(app, ["audit-log", "verify", str(folder), "--quiet"]).stdout == ""
    cut = run(app, ["audit-log", "verify", str(folder), "--head", "f" * 64, "--json"])
    assert cut.exit_code == 1
    assert json.loads(cut.stdout)["entries"] == 6
    for wrong, words in ((tmp_path / "none", "no file or folder"), (tmp_path, "holds no audit trail")):
        ended = run(app, ["audit-log", "verify", str(wrong)])
        assert (ended.exit_code, words in ended.stderr) == (2, True)


@pytest.mark.parametrize("left", [1, 200, -1])
def test_what_a_kill_tore_is_cut_off(folder: Path, left: int) -> None:
    last = sorted(folder.glob("*.jsonl"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole + whole.splitlines(True)[-1][:left])
    assert check_audit_log(folder).problem == ""  # while it is written to
    fill(folder, 1)
    assert len(follows(folder)) == 7
    assert last.read_bytes().startswith(whole)


def test_a_second_writer_is_refused_and_the_first_goes_on(folder: Path) -> None:
    with AuditLog(folder) as log:
        with pytest.raises(InputError, match="Another process writes"):
            AuditLog(folder)
        log.append("answer")
    fill(folder, 1)
    assert len(follows(folder)) == 8


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk that takes files of a kilobyte."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_the_entry_and_not_the_chain(
    tmp_path: Path, small_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AuditLog(tmp_path) as log:
        for _ in range(2):
            log.append("answer", filler="x" * 50)
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                log.append("answer", filler="x" * 500)
        log.append("answer")
    assert [entry["seq"] for entry in follows(tmp_path)] == [1, 2, 3]


WRITER = """
import sys
from pathlib import Path
from wsi_ncmi.service.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]), max_bytes=5000)
print("open", flush=True)
while True:
    print(log.append("answer", filler="x" * 300)["seq"], flush=True)
"""


def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    """Real kills in mid-write: no acknowledged entry is lost, none is there twice, the chain is whole."""
    for number in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            time.sleep(0.03 * (number + 1))
            writer.send_signal(signal.SIGKILL)
            told = [int(line) for line in writer.stdout.read().splitlines() if line]
        assert told
        entries = follows_whole(tmp_path)
        assert told[-1] <= len(entries) <= told[-1] + 1
    assert check_audit_log(tmp_path).problem == ""
    assert len(list(tmp_path.glob("*.jsonl"))) > 1


def follows_whole(folder: Path) -> list[dict[str, Any]]:
    with AuditLog(folder):
        return follows(folder)
