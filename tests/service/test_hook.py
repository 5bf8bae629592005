"""Answers handed on by real commands: once they are taken, again where they are not, and none is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.service.hook import Outbox


def script(folder: Path, text: str) -> str:
    path = folder / "take it"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"'{path}' --to 'a b'"


def answer(number: int) -> dict[str, Any]:
    return {"slide_id": "s", "audit": {"seq": number, "sha256": "x"}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.json"))


def test_without_a_command_the_answers_lie_there(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "", 5)
    outbox.put("s", answer(1))
    assert outbox.deliver() == (0, 0)
    assert json.loads((tmp_path / "answers" / "s.json").read_text()) == answer(1)


def test_a_command_gets_each_answer_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, script(tmp_path, f'echo "$1|$2|$(cat "$3")" >> {tmp_path}/log'), 5)
    for slide in ("a; touch $HOME", "b"):
        outbox.put(slide, answer(1))
    assert outbox.deliver() == (0, 0)
    assert outbox.deliver() == (0, 0)
    log = (tmp_path / "log").read_text()
    assert log.count("--to|a b|{") == 2
    assert log.count('"seq": 1') == 2
    assert names(tmp_path / "answers") == ["a; touch $HOME.json", "b.json"]
    outbox.put("b", answer(1))  # the same one, after a restart
    outbox.put("a; touch $HOME", answer(2))
    assert outbox.deliver() == (0, 0)
    assert (tmp_path / "log").read_text().count("--to") == 3


def test_what_is_not_taken_comes_again_and_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = script(
        tmp_path,
        f'case "$3" in */bad.json) echo "no such patient" >&2; exit 3;; esac; echo "$3" >> {tmp_path}/log',
    )
    outbox = Outbox(tmp_path, command, 5)
    for number, slide in enumerate(("bad", "c", "d")):
        outbox.put(slide, answer(number))
    assert outbox.deliver() == (1, 3)
    assert "the answer of bad (it ended with 3: no such patient)" in caplog.text
    assert outbox.deliver() == (1, 1)
    assert names(tmp_path / "answers") == ["c.json", "d.json"]
    assert names(tmp_path / "answers" / "pending") == ["bad.json"]
    mended = Outbox(tmp_path, script(tmp_path, "exit 0"), 5)  # after a restart
    assert mended.deliver() == (0, 0)
    assert names(tmp_path / "answers") == ["bad.json", "c.json", "d.json"]


def test_a_command_that_hangs_is_ended_with_its_children(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path, script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/pid; sleep 60"), 0.3)
    outbox.put("s", answer(1))
    assert outbox.deliver() == (1, 1)
    assert "it took longer than 0.3 s" in caplog.text
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _lives(child):
            break
        time.sleep(0.01)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_stop_in_the_moment_when_the_command_ended_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path, script(tmp_path, "exit 0"), 5)
    outbox.put("s", answer(1))

    def interrupted(self: subprocess.Popen[str], **_: object) -> None:
        self.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outbox.deliver()
    assert names(tmp_path / "answers" / "pending") == ["s.json"]


def test_a_command_that_can_not_be_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no program 'no-such-program'"):
        Outbox(tmp_path, "no-such-program --x", 5)
    with pytest.raises(InputError, match="can't be split into words"):
        Outbox(tmp_path, "curl 'x", 5)
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/at/all\n")
    broken.chmod(0o755)
    outbox = Outbox(tmp_path, str(broken), 5)
    outbox.put("s", answer(1))
    assert outbox.deliver() == (1, 1)


KILLED = """
import sys
from pathlib import Path
from wsi_ncmi.service.hook import Outbox
outbox = Outbox(Path(sys.argv[1]), sys.argv[2], 30)
outbox.put("s", {"audit": {"seq": 1}})
outbox.deliver()
"""


def test_a_kill_while_the_command_runs_loses_nothing(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), script(tmp_path, f"touch {started}; exec sleep 3")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:  # fmt: skip
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path / "answers" / "pending") == ["s.json"]
    assert Outbox(tmp_path, script(tmp_path, "exit 0"), 5).deliver() == (0, 0)
    assert names(tmp_path / "answers") == ["s.json"]
