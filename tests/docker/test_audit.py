"""What ``make audit`` says of each answer that pip-audit gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "audit.py"
CLEAN = {"name": "numpy", "version": "2.0", "vulns": []}
HOLE = {"id": "PYSEC-2024-1", "fix_versions": ["3.1.6"], "aliases": [], "description": ""}
VULNERABLE = {"name": "jinja2", "version": "2.4.1", "vulns": [HOLE]}
SKIPPED = {
    "name": "torch",
    "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.9.1)",
}
# As pip-audit writes its answer, or breaks off.
ANSWER = "import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--output') + 1]).write_text({text!r})"
BREAK = "raise ConnectionError('Failed to resolve the service')"


def audit(program: str) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, SCRIPT, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([CLEAN], 0, ["No known vulnerability; packages asked about: 1."]),
        ([CLEAN, VULNERABLE], 1, ["jinja2 2.4.1: PYSEC-2024-1, mended in 3.1.6", "Known vulnerabilities: 1, in 2 packages."]),
        ([CLEAN, SKIPPED], 3, ["could not be asked about 1 of 2 packages (Dependency not found"]),
        ([VULNERABLE, SKIPPED], 1, ["jinja2 2.4.1", "could not be asked about 1 of 2 packages"]),
    ],
    ids=["clean", "vulnerable", "not asked", "vulnerable and not asked"],
)  # fmt: skip
def test_every_answer_has_its_sentence_and_code(packages: list[object], code: int, words: list[str]) -> None:
    found, lines = audit(ANSWER.format(text=json.dumps({"dependencies": packages, "fixes": []})))
    assert (found, len(lines)) == (code, len(words))
    assert all(expected in line for expected, line in zip(words, lines, strict=True))


def test_a_service_out_of_reach_is_one_sentence_and_no_trace() -> None:
    code, lines = audit(BREAK)
    assert code == 3
    assert len(lines) == 1
    assert "could not be asked about any package (ConnectionError: Failed to resolve the service)" in lines[0]
    assert "Run `make audit` on a machine that reaches the service" in lines[0]
