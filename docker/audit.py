"""Asks pip-audit about every locked package and says in one sentence what that gave; ``make audit`` runs it.

    python docker/audit.py PIP-AUDIT [ARGUMENT ...]

pip-audit alone ends with a stack trace where it can't reach its service, and counts packages that the service
does not know among those without a hole. Exit code 0: all were asked about, none has a known vulnerability.
1: some have one; they are listed. 3: not all could be asked about, so nothing is certain.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CLEAN, VULNERABLE, UNKNOWN = 0, 1, 3
WHERE = "Run `make audit` on a machine that reaches the service (PyPI's JSON; docs/explanation/security.md)."


def ask(command: list[str]) -> tuple[list[dict[str, object]], str]:
    """What pip-audit found of each package, and its last words."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        ended = subprocess.run(  # noqa: S603 - it is what the caller gave
            [*command, "--format", "json", "--output", str(found)],
            capture_output=True,
            text=True,
            check=False,
        )
        words = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        if not found.exists():
            return [], words[-1]
        return list(json.loads(found.read_text(encoding="utf-8"))["dependencies"]), words[-1]


def judge(packages: list[dict[str, object]], last_words: str) -> tuple[int, list[str]]:
    """Exit code and what to say."""
    if not packages:
        return UNKNOWN, [
            f"The vulnerability service could not be asked about any package ({last_words}). {WHERE}"
        ]
    lines = []
    for package in packages:
        for hole in package.get("vulns", []):  # type: ignore[attr-defined]
            mended = ", ".join(hole["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {hole['id']}, mended in {mended}")
    skipped = [package for package in packages if "skip_reason" in package]
    if skipped:
        lines.append(
            f"The vulnerability service could not be asked about {len(skipped)} of {len(packages)} packages "
            f"({skipped[0]['skip_reason']}). {WHERE}"
        )
        return VULNERABLE if len(lines) > 1 else UNKNOWN, lines
    if lines:
        return VULNERABLE, [*lines, f"Known vulnerabilities: {len(lines)}, in {len(packages)} packages."]
    return CLEAN, [f"No known vulnerability; packages asked about: {len(packages)}."]


def main() -> None:
    """Asks and says."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    code, lines = judge(*ask(sys.argv[1:]))
    print(*lines, sep="\n", file=sys.stderr if code else sys.stdout)
    sys.exit(code)


if __name__ == "__main__":
    main()
