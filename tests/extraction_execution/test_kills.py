"""Innocent slides of a dead worker, kills at random, and two hosts on one folder."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.local import run_slides
from wsi_ncmi.extraction.ledger import read_journal
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features import verify_folder

OPTIONS = EncoderConfig(batch_size=16)
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DeadlyTask(SlideTask):
    """A slide whose decoder takes the process with it, with all that is in flight."""

    @property
    def files(self) -> Path:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def as_kind(task: SlideTask, kind: type[SlideTask]) -> SlideTask:
    return kind(task.record, task.config)


def test_a_slide_that_kills_two_workers_fails_and_takes_no_other_along(tasks) -> None:
    todo = tasks()
    # The deadly slide comes second, so that the first is in flight when the worker dies.
    rows = run_slides([todo[0], as_kind(todo[1], DeadlyTask), *todo[2:]], OPTIONS, workers=1, timeout_s=300)
    assert [row.status for row in rows] == ["done", "failed", "done", "done"]
    assert "tried alone" in rows[1].reason
    assert list((todo[0].out / "features" / "descriptor" / ".claims").iterdir()) == []


def test_kills_at_random_leave_no_trace() -> None:
    """A small one of ``benchmarks/kill_test.py``, which does a hundred."""
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kill_test.py", "--kills", "3", "--slides", "6", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["kills"] == 3
    assert result["faults"] == 0


HOST = """
import pickle, sys
from pathlib import Path
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction import claims
from wsi_ncmi.extraction import run_slides
if __name__ == "__main__":
    claims._host = lambda: sys.argv[2]  # another boot id: whether a holder lives can't be known
    run_slides(pickle.loads(Path(sys.argv[1]).read_bytes()), EncoderConfig(batch_size=16), workers=1)
"""


def test_two_hosts_on_one_folder_share_the_work(tasks, tmp_path: Path) -> None:
    todo = tasks()
    (tmp_path / "host.py").write_text(HOST)
    (tmp_path / "tasks.pickle").write_bytes(pickle.dumps(todo))
    hosts = [
        subprocess.Popen([sys.executable, tmp_path / "host.py", tmp_path / "tasks.pickle", f"host-{number}"])
        for number in range(2)
    ]
    assert [host.wait(120) for host in hosts] == [0, 0]
    done = Counter(row.slide_id for row in read_journal(todo[0].out / "ledger.jsonl") if row.status == "done")
    assert done == {task.record.slide_id: 1 for task in todo}
    assert all(verdict.ok for verdict in verify_folder(todo[0].out))
    assert list((todo[0].out / "features" / "descriptor" / ".claims").iterdir()) == []
