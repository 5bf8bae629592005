"""Every command of README and docs: bash splits it, and the real parsers of the program take its flags and keys.

Those of the README's main line are run, on a cohort of small drawn slides.
"""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import wsi_ncmi.cli.grid
import wsi_ncmi.core.config
from tests.workflows.conftest import tissue
from wsi_ncmi.cli.app import app
from wsi_ncmi.cli.flags import PLAIN
from wsi_ncmi.synthesis import write_pyramid

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "docker/README.md", "skills/wsi-ncmi/SKILL.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# No command is found, so the handler gets all of them, after bash has done variables, loops and pipes.
_RECORD = r"""
command_not_found_handle() { printf '%s\0' "$@" >> "$LOG"; printf '\1\0' >> "$LOG"; }
cd() { :; }
PATH=/nowhere
"""


class _ReadToTheEnd(BaseException):
    """The configuration or the arguments are read; the job itself is not to begin."""


def shell_blocks(page: Path) -> list[str]:
    return [text for kind, text in _FENCED.findall(page.read_text(encoding="utf-8")) if kind == "sh"]


def commands(block: str, folder: Path) -> list[list[str]]:
    """The commands of a block, each a list of its words."""
    log = folder / "log"
    log.write_bytes(b"")
    done = subprocess.run(
        ["/bin/bash", "-c", _RECORD + block],
        cwd=folder,
        env={"LOG": str(log)},
        capture_output=True,
        check=False,
    )
    assert b"syntax error" not in done.stderr, done.stderr.decode()
    found = log.read_bytes().decode().split("\1\0")[:-1]
    return [entry.split("\0")[:-1] for entry in found]


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Programs end as soon as their arguments and their configuration are read."""

    def after(function: Any) -> Any:
        def read(*arguments: Any, **named: Any) -> None:
            function(*arguments, **named)
            raise _ReadToTheEnd

        return read

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", after(argparse.ArgumentParser.parse_args))
    monkeypatch.setattr(wsi_ncmi.core.config, "read_config", after(wsi_ncmi.core.config.read_config))
    monkeypatch.setattr(wsi_ncmi.cli.grid, "check_there", lambda *_: None)  # it looks before it reads
    for name in ("benchmarks", "docker", "pipelines", "research"):
        (tmp_path / name).symlink_to(ROOT / name)
    training = (ROOT / "docs" / "explanation" / "training.md").read_text(encoding="utf-8")
    (tmp_path / "space.yaml").write_text(dict(_FENCED.findall(training))["yaml"])
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def check(words: list[str], stopped: pytest.MonkeyPatch) -> str:
    """What is wrong with a command; empty for one that is right, or another program's."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if set(rest) <= set(targets) else "no such target"
    if program in ("docker", "apptainer", "torchrun", "sbatch"):
        image = [n for n, word in enumerate(rest) if word.startswith("wsi-ncmi:") or word.endswith(".sif")]
        if rest[0] == "run" and image:
            return check(["wsi-ncmi", *rest[image[0] + 1 :]], stopped)
        if program == "torchrun":
            start = next(n for n, word in enumerate(rest) if word == "-m" or word.endswith(".py"))
            return check(["python", *rest[start:]], stopped)
        files = [word for word in rest if word.startswith(("docker/", "pipelines/"))]
        return "".join(f"no file {file}" for file in files if not (ROOT / file).is_file())
    if program == "python" and rest[:2] == ["-m", "wsi_ncmi"]:
        return check(["wsi-ncmi", *rest[2:]], stopped)
    if program == "python" and rest[0] == "-m" and rest[1].startswith("research."):
        for module in (rest[1], f"{rest[1]}.__main__"):  # of a test before: runpy warns of it
            stopped.delitem(sys.modules, module, raising=False)
        return script(
            lambda: runpy.run_module(rest[1], run_name="__main__", alter_sys=True), rest[1:], stopped
        )
    if program == "python" and rest[0].endswith(".py"):
        return script(lambda: runpy.run_path(rest[0], run_name="__main__"), rest, stopped)
    return verb(rest) if program == "wsi-ncmi" else ""


def script(run: Any, words: list[str], stopped: pytest.MonkeyPatch) -> str:
    stopped.setattr(sys, "argv", words)
    stopped.syspath_prepend(str((ROOT / words[0]).parent))
    try:
        run()
    except _ReadToTheEnd:
        return ""
    except SystemExit as ending:
        return f"exit code {ending.code}"
    return "it read nothing"


def verb(words: list[str]) -> str:
    command: Any = typer.main.get_command(app)
    context, rest = command.make_context("wsi-ncmi", list(words)), words
    try:
        while isinstance(command, TyperGroup):
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, rest, parent=context)
        if words[:2] == ["doctor", "--heartbeat"]:
            return ""  # it has no configuration to read
        module = words[0].replace("-", "_")
        if not getattr(sys.modules[f"wsi_ncmi.cli.{module}"], "FLAGS", PLAIN).config:
            return ""  # it has no configuration to read
        command.invoke(context)
    except _ReadToTheEnd:
        return ""
    except typer.Exit as ending:
        return f"exit code {ending.exit_code}"
    except Exception as error:
        return str(getattr(error, "format_message", error.__repr__)())  # Typer's own, of a module it hides
    return "it read nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_the_program_takes(
    page: Path, stopped: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = []
    for block in shell_blocks(page):
        for words in commands(block, tmp_path):
            if fault := check(words, stopped):
                faults.append(f"{' '.join(words)}: {fault} {capsys.readouterr().err}")
    assert not faults, "\n".join(faults)


def test_commands_stand_in_blocks_of_shell() -> None:
    others = [
        (page.name, text)
        for page in PAGES
        for kind, text in _FENCED.findall(page.read_text(encoding="utf-8"))
        if kind != "sh" and re.match(r"(wsi-ncmi|python|make) ", text)
    ]
    assert not others
    assert sum(len(shell_blocks(page)) for page in PAGES) > 30


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("wsi-ncmi trian --features f --out run", "No such command"),
        ("wsi-ncmi train --features f --out run --lss ce", "No such option"),
        ("wsi-ncmi extract slides", "Missing option"),
        ("wsi-ncmi run camelyon17 --set slidez=c17", "exit code 2"),
        ("wsi-ncmi run camelyon71", "exit code 2"),
        ("wsi-ncmi train --features f --out run --loss nmci", "exit code 2"),
        ("python benchmarks/tile_reading.py --jsno", "exit code 2"),
        ("python pipelines/image_classification.py cifar10_resnet18 recipe.rate=1", "exit code 2"),
        ("torchrun -m wsi_ncmi train --modle vit", "No such option"),
        ("docker run --rm wsi-ncmi:gpu extrakt /slides", "No such command"),
        ("make demmo", "no such target"),
    ],
)
def test_a_wrong_command_would_be_found(
    command: str, fault: str, stopped: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (words,) = commands(command, tmp_path)
    assert fault in check(words, stopped)


_BRIEF = ("--set", "evaluation.resamples=100", "--set", "evaluation.figures=none")
_QUICK = {
    "extract": ("--workers", "1"), "predict": ("--workers", "1"),
    "train": ("--epochs", "2", "--workers", "1", *_BRIEF), "evaluate": _BRIEF,
}  # fmt: skip


def test_the_main_line_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command after the other, in one folder, with the files that each one leaves; the slides are small ones."""
    slides = tmp_path / "cohort" / "slides"
    slides.mkdir(parents=True)
    rows = ["slide_id,label,case_id"]
    for number in range(10):
        pixels = tissue(
            number, 640 + 64 * (number % 5), 512 + 32 * number
        )  # no two alike, or the audit objects
        pixels[..., 1] //= 1 + number % 2
        write_pyramid(slides / f"patient_00{number}_node_0.svs", pixels, 0.5)
        rows.append(f"patient_00{number}_node_0,{'ab'[number % 2]},p{number}")
    (tmp_path / "cohort" / "labels.csv").write_text("\n".join(rows) + "\n")
    (line,) = [block for block in shell_blocks(ROOT / "README.md") if "wsi-ncmi train" in block]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wsi_ncmi.reporting.viewer.ViewerServer.serve_forever", lambda _: None)
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    done = []
    synth, *others = commands(line, tmp_path)
    assert synth[:3] == ["wsi-ncmi", "synth", "cohort"]  # which draws what stands there now, in a minute
    for words in others:
        result = CliRunner().invoke(app, [*words[1:], *_QUICK.get(words[1], ())])
        assert result.exit_code == 0, f"{' '.join(words)}: {result.output}"
        done.append(words[1])
    assert done[-4:] == ["evaluate", "export", "predict", "view"]
    assert len(list((tmp_path / "out" / "features" / "descriptor").glob("*.h5"))) == 10
    assert (tmp_path / "model.zip").is_file()
    assert "patient_000_node_0," in (tmp_path / "predictions" / "predictions.csv").read_text()
