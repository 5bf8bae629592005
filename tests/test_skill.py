"""SKILL.md: each verb and flag that it names exists, and what it says of results is so."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
import yaml
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.doctor import Finding

SKILL = Path(__file__).resolve().parents[1] / "skills" / "wsi-ncmi" / "SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")


def flags_of(*verbs: str) -> set[str]:
    command: Any = typer.main.get_command(app)
    context = command.make_context("wsi-ncmi", ["doctor"])
    for verb in verbs:
        command = command.get_command(context, verb)
        assert command is not None, verbs
    context = command.make_context(verbs[-1], [], resilient_parsing=True)
    return {option for each in command.get_params(context) for option in each.opts}


def test_the_front_matter_is_that_of_a_skill() -> None:
    _, front, _ = TEXT.split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["name"] == SKILL.parent.name
    assert 50 < len(content["description"]) <= 1024


def test_verbs_and_flags_exist() -> None:
    """Those in sentences; the commands of its blocks go through tests/test_shell_blocks.py."""
    named = re.findall(r"`wsi-ncmi ((?:[a-z]+ )?[^`]+)`", TEXT)
    assert len(named) > 10
    for line in named:
        words = line.split()
        if words[0] == "VERB" or "VERB" in words:
            continue
        verbs = words[:2] if words[0] in ("encoders", "config", "models") else words[:1]
        missing = {word for word in words if word.startswith("--")} - flags_of(*verbs)
        assert not missing, (line, missing)
    everywhere = {flag for verb in ("extract", "train", "compare", "split") for flag in flags_of(verb)}
    assert set(re.findall(r"`(--[a-z-]+)", TEXT)) <= everywhere | {"--quiet", "--json"}


def test_exit_codes_and_json_are_as_told(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, Any]:
        done = CliRunner().invoke(app, list(words))
        return done.exit_code, json.loads(done.stdout) if done.stdout else done.stderr

    labels, splits = tmp_path / "labels.csv", tmp_path / "splits.json"
    labels.write_text("slide_id,label,case_id\n" + "".join(f"s{n},{'ab'[n % 2]},p{n}\n" for n in range(12)))
    code, content = run("split", str(labels), "--out", str(splits), "--folds", "2", "--json")
    assert (code, set(content)) == (0, {"files", "failures", "notes"})
    assert "result" in TEXT
    code, content = run("audit", str(splits), "--labels", str(labels), "--json")
    assert code == 0
    assert f"`{{{', '.join(content)}}}`" in TEXT
    assert run("audit", str(splits), "--labels", str(tmp_path / "none.csv"), "--json")[0] == 2
    code, content = run("verify", str(tmp_path), "--json")
    assert code == 2 or set(content) == {"files", "bad"}


def test_the_findings_of_doctor_have_the_fields_told() -> None:
    assert f"`{{{', '.join(field.name for field in dataclasses.fields(Finding))}}}`" in TEXT
    assert all(f"`{status}`" in TEXT for status in get_args(get_type_hints(Finding)["status"]))
