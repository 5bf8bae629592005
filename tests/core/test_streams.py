"""The standard streams: closed, full, of another encoding, and JSON in every line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VERB = [sys.executable, "-m", "wsi_ncmi"]


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of bash in which ``wsi-ncmi`` is this checkout's."""
    line = f'wsi-ncmi() {{ "{sys.executable}" -m wsi_ncmi "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("wsi-ncmi losses >/dev/full", 1, "The output can't be written (No space left on device)."),
        ("wsi-ncmi losses --json >&-", 1, "The output can't be written (Bad file descriptor)."),
        ("wsi-ncmi --help >/dev/full", 1, "The output can't be written (No space left on device)."),
        ("set -o pipefail; wsi-ncmi losses | head -0", 1, ""),
        ("wsi-ncmi verify nowhere 2>/dev/full", 2, ""),
        ("wsi-ncmi verify nowhere 2>&- <&-", 2, ""),
    ],
)
def test_a_stream_that_takes_nothing_is_one_sentence_at_most(command: str, code: int, told: str) -> None:
    ended = shell(command)
    assert ended.returncode == code
    assert ended.stderr.decode().strip() == (told and f"Error: {told}")


def test_worker_processes_inherit_what_stands_in_for_a_closed_stream() -> None:
    child = "import os, sys; [os.fstat(number) for number in range(3)]; sys.stdout.flush()"
    parent = (
        "import subprocess, sys; from wsi_ncmi.core.streams import prepare_streams; prepare_streams(); "
        f"sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    )
    assert shell(f'"{sys.executable}" -c "{parent}" >&- <&-').returncode == 0


def test_a_worker_without_a_standard_output_ends_in_silence() -> None:
    code = (
        "import multiprocessing, sys; from wsi_ncmi.parallel.process_pool import _receive; "
        "ours, theirs = multiprocessing.Pipe(); theirs.close(); sys.stdout = None; _receive(ours)"
    )
    ended = shell(f'"{sys.executable}" -c "{code}"')
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_what_the_terminal_lacks_is_an_escape() -> None:
    ended = shell("wsi-ncmi inventory noł; wsi-ncmi losses", PYTHONIOENCODING="latin-1:strict")
    assert ended.returncode == 0
    assert b"no\\u0142;" in ended.stderr
    assert b"\\u03a3" in ended.stdout  # sums in formulas of losses


# Everything that can write to standard error, a child that lives on and an end without ceremony.
EVERYTHING = """
import ctypes, logging, os, subprocess, sys, threading, warnings
sys.argv = ["wsi-ncmi", "--log-format", "json"]
from wsi_ncmi.core import streams
os.environ["WSI_NCMI_LOG_FORMAT"] = "json"
streams.prepare_streams()
from wsi_ncmi.core.logging import configure_logging
configure_logging(logging.INFO)
warnings.warn("a warning of Python")
os.write(2, b"TIFFReadDirectory: Warning\\x1b[31m \\xff\\n")
ctypes.CDLL(None).perror(b"of the C library")
os.write(2, b"\\r 10 %\\r 20 %\\n\\n")
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'of a child\\\\n')"])
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
logging.getLogger("wsi_ncmi").info("our own")
print("result", flush=True)
os.write(2, b"no line break")
"""


def records(text: bytes) -> list[dict[str, Any]]:
    assert b"\x1b" not in text
    found = [json.loads(line) for line in text.splitlines()]
    assert all(
        isinstance(each, dict) and {"time", "level", "logger", "message"} <= set(each) for each in found
    )
    return found


@pytest.mark.parametrize(
    "end", ["", "\n1 / 0", "\nos._exit(3)", "\nos.abort()", "\nos.kill(os.getpid(), 9)", "\nsys.exit(4)"]
)
def test_every_line_is_json_whoever_writes_it_and_however_it_ends(end: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", EVERYTHING + end], capture_output=True, check=False, timeout=60
    )
    told = [each["message"] for each in records(ended.stderr)]
    for message in (
        "UserWarning: a warning of Python", "TIFFReadDirectory: Warning\x1b[31m \\xff", "of the C library: Success",
        "20 %", "of a child", "ZeroDivisionError: division by zero", "our own",
    ):  # fmt: skip
        assert message in told, told
    assert told[-1] == ("ZeroDivisionError: division by zero" if end == "\n1 / 0" else "no line break")
    assert ended.stdout == b"result\n"


def test_what_was_written_is_out_when_the_process_has_ended(tmp_path: Path) -> None:
    """Also where a child of it lives on and keeps the pipe open."""
    script = EVERYTHING + "\nos.write(2, b'last' * 10000)\nsubprocess.Popen(['sleep', '3'])"
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=log, check=True)
    told = records((tmp_path / "log").read_bytes())
    assert told[-1]["message"] == "no line break" + "last" * 10000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["losses", "a\x1bb"], "Got unexpected extra argument"),
        (["verify", "a\x1b\u202e\udcffb"], "a\x1b\u202e\udcffb"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_wrong_usage_is_json_too(arguments: list[str], told: str) -> None:
    ended = subprocess.run([*VERB, "--log-format", "json", *arguments], capture_output=True, check=False)
    assert ended.returncode == 2
    (record,) = records(ended.stderr)
    assert told in record["message"]
    assert record["exit_code"] == 2
