"""Files that hang, crash or fill the process that opens them."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import PosixPath

import numpy as np

from wsi_ncmi.core.progress import NullProgress
from wsi_ncmi.slides.discovery import FoundSlide
from wsi_ncmi.slides.inspection import inspect_slides


class Deadly(PosixPath):
    """A file during whose opening the process ends, as by a fault in a library."""

    def stat(self, **more):
        ctypes.string_at(0)


class Bomb(PosixPath):
    """A file whose opening takes more memory than the process may have."""

    def stat(self, **more):
        held = [np.empty(1 << 30, np.uint8) for _ in range(64)]
        raise AssertionError(f"{len(held)} GiB")


def test_a_crash_a_hang_and_a_bomb_cost_one_row_each(tmp_path, svs):
    names = ["a.svs", "bomb.svs", "b.svs", "deadly.svs", "c.svs", "hang.svs", "d.svs"]
    for name in names:
        shutil.copy(svs, tmp_path / name)
    (tmp_path / "hang.svs").unlink()
    os.mkfifo(
        tmp_path / "hang.svs"
    )  # the search would refuse it; here it stands for a disk that does not answer
    kinds = {"bomb.svs": Bomb, "deadly.svs": Deadly}
    found = [(FoundSlide(kinds.get(name, PosixPath)(tmp_path / name), name), name, None) for name in names]
    with NullProgress().task("", len(found)) as task:
        records = inspect_slides(found, None, task, timeout_s=4.0)
    problems = {record.path: record.problem for record in records}
    assert [name for name in names if not problems[name]] == ["a.svs", "b.svs", "c.svs", "d.svs"]
    assert problems["bomb.svs"] == "bomb.svs takes more memory than a slide may; it is damaged."
    assert problems["deadly.svs"].startswith("deadly.svs ends the process that opens it (signal SIGSEGV)")
    assert problems["hang.svs"].startswith("hang.svs was not opened within 4 s")


def test_an_inventory_needs_no_main_module(tmp_path, svs):
    """A script without ``if __name__ == "__main__"`` takes an inventory; its processes don't run it again."""
    import subprocess
    import sys

    shutil.copy(svs, tmp_path / "a.svs")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom wsi_ncmi.slides import take_inventory\n"
        "print(len(take_inventory(Path(__file__).parent)))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "1\n"
