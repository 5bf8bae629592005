"""Pages of the documentation that are made from the program, and the form of those that are written."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from wsi_ncmi.cli.app import _PANELS, _name, app
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.zoo import zoo_models
from wsi_ncmi.losses import list_losses
from wsi_ncmi.workflows.config import JobConfig

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "mkdocs.yml").is_file(), reason="an installed package has no docs"
)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec: Any = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_has_every_verb_and_flag(hooks: ModuleType) -> None:
    page = hooks.cli_page()
    sections = dict(
        re.findall(r"^### wsi-ncmi ([a-z-]+)\n(.*?)(?=^###? |\Z)", page, re.DOTALL | re.MULTILINE)
    )
    modules = [module for panel in _PANELS.values() for module in panel]
    assert list(sections) == [_name(module) for module in modules]
    for module in modules:
        for flag in set(module.FLAGS.names().values()) if hasattr(module, "FLAGS") else ():
            shown = re.escape(flag.replace("|", r"\|"))  # in a table
            assert re.search(rf"`{shown}\b", sections[_name(module)]), (_name(module), flag)
    assert "#### wsi-ncmi encoders fetch" in page
    assert not re.search(r"(?<!`)``(?!`)|:class:", page)


def test_the_page_of_settings_has_every_key_with_its_default(hooks: ModuleType) -> None:
    page = hooks.configuration_page()

    def check(config: Any, prefix: str) -> None:
        for field in fields(config):
            value = getattr(config, field.name)
            if is_dataclass(value) and not hasattr(value, "summary"):
                check(value, f"{prefix}{field.name}.")
            else:
                assert f"| `{prefix}{field.name}` |" in page, f"{prefix}{field.name}"

    check(JobConfig(), "")
    assert "| `training.learning_rate` | NUMBER | `0.0005` |" in page
    for loss in list_losses():
        assert f"### {loss.name}\n" in page
    assert all(
        row.count("|") - row.count("\\|") in (3, 5) for row in page.splitlines() if row.startswith("|")
    )


def test_the_tables_of_encoders_have_every_preset(hooks: ModuleType) -> None:
    table, grids = hooks.preset_table(), hooks.grid_table()
    assert all(f"| `{key}` |" in text for key in presets() for text in (table, grids))
    rows = {line.split("|")[1].strip(" `"): line for line in table.splitlines()[2:]}
    assert "| **CC-BY-NC-ND-4.0" in rows["uni_v1"]  # a licence that forbids commerce stands out
    assert "| Apache-2.0, gated |" in rows["hoptimus0"]
    assert "| `hoptimus0` | 1,134,774,272 |" in hooks.parameter_table()
    assert all(f"| `{key}` |" in hooks.zoo_table() for key in zoo_models())
    assert "| `gpfm` | 0.25 | 512 | 128 µm | 1,024 |" in grids


def test_the_commands_of_the_table_are_the_programs_own(hooks: ModuleType) -> None:
    root: Any = typer.main.get_command(app)
    above = root.make_context("wsi-ncmi", ["doctor"])
    rows = hooks.preset_table().splitlines()[2:]
    assert len(rows) == len(presets())
    for key, row in zip(presets(), rows, strict=True):
        commands = re.findall(r"`wsi-ncmi ([^`]+)`", row)
        assert len(commands) == 2
        assert EncoderConfig(name=key).name == key == commands[1].split()[-1]
        for words in map(str.split, commands):
            context, command = above, root.get_command(above, words.pop(0))
            if words[0] in getattr(command, "commands", {}):
                context, command = above, command.commands[words.pop(0)]
            command.make_context("x", words, parent=context)


@pytest.mark.parametrize(
    ("page", "written", "wanted"),
    [
        ("how-to/install-offline.md", "[a](../../docker/README.md)", "[a](containers.md)"),
        ("how-to/containers.md", "[a](../docs/how-to/scale.md#ray)", "[a](scale.md#ray)"),
        ("development/contributing.md", "[a](docs/index.md)", "[a](../index.md)"),
        (
            "index.md",
            "[a](tutorials/x.md) [b](https://x.org/docs/)",
            "[a](tutorials/x.md) [b](https://x.org/docs/)",
        ),
        ("reference/api.md", "[a](../../benchmarks/tile_reading.py)", "a"),
    ],
)
def test_links_that_cross_the_border_of_the_docs(
    hooks: ModuleType, page: str, written: str, wanted: str
) -> None:
    assert hooks.inner_links(written, page) == wanted


def test_lines_of_the_sources_are_short() -> None:
    """But for rows of tables and pictures, which can't be broken."""
    long = [
        f"{page.name}:{number}"
        for page in sorted((ROOT / "docs").rglob("*.md"))
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100 and not line.lstrip().startswith(("|", "!["))
    ]
    assert not long, long
