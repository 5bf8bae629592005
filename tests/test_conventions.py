"""Files that people and services look for beside the code: citation, issue forms, workflow, release."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from wsi_ncmi import __version__

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout has these files")


def read(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_names_this_version_and_the_paper() -> None:
    found = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(found)
    assert found["version"] == __version__
    paper = found["preferred-citation"]
    assert [each["family-names"] for each in paper["authors"]] == ["Ye", "Chi", "Plataniotis", "Yang"]
    assert paper["url"].endswith("2601.02543")


@pytest.mark.parametrize("name", ["slide", "fault", "idea"])
def test_issue_forms_are_forms(name: str) -> None:
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    fields = [each for each in form["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in fields}) == len(fields)
    assert all(each["attributes"]["label"] for each in fields)
    needed = {each["id"] for each in fields if each.get("validations", {}).get("required")}
    labels = {each["id"]: each["attributes"]["label"] for each in fields}
    if name != "idea":
        assert "doctor" in needed
        assert "wsi-ncmi doctor --json" in labels["doctor"]
        assert "ledger.csv" in labels["ledger"]
    assert ("ledger" in needed) == (name == "slide")


def test_the_workflow_calls_what_a_submission_must_pass() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def make(*arguments: str, stamp: Path) -> subprocess.CompletedProcess[str]:
    stamp.touch()  # the environment is there
    command = ["make", "-s", "-C", str(ROOT), *arguments, f"STAMP={stamp}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_a_release_needs_its_key_and_signs_all(tmp_path: Path) -> None:
    refused = make("release", stamp=tmp_path / "stamp")
    assert refused.returncode == 2
    assert "make release KEY=FILE" in refused.stderr
    steps = make("-n", "release", "KEY=key", stamp=tmp_path / "stamp").stdout
    order = ["python -m build", "twine check --strict", "sbom", "sha256sum", "ssh-keygen -Y sign"]
    places = [steps.index(each) for each in order]
    assert places == sorted(places)
