"""The snippets of newcomers, run by the installed wheel outside the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.end_to_end.conftest import PROJECT, clean_environment


def test_every_snippet_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "snippets.py"
    script.write_bytes((PROJECT / "tests" / "api" / "snippets.py").read_bytes())
    result = subprocess.run(
        [str(installed.parent / "python"), str(script), str(tmp_path / "work")],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("\nok ") + result.stdout.startswith("ok ") > 20
