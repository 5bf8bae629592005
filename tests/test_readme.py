"""README and CONTRIBUTING: names, arguments and files that they mention exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_names_and_arguments(block: str) -> None:
    tree = ast.parse(block)
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            names |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert names
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            signature = inspect.signature(names[node.func.id])  # type: ignore[arg-type]
            signature.bind(
                *node.args, **{keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            )


def test_the_files_of_the_map_exist() -> None:
    text = README.with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:[a-z_]+\.(?:py|yaml))?)`", text))
    assert len(named) > 20
    root = README.parent
    assert not [
        each for each in named if not (root / each).exists() and not (root / "wsi_ncmi" / each).exists()
    ]


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) <= 700
    links = re.findall(r"\]\((?!https:)([^)#]+)", text)
    assert len(links) > 10
    assert not [link for link in links if not (README.parent / link).exists()]
    pictures = [link for link in links if link.startswith("docs/images/")]
    assert all((README.parent / picture).stat().st_size <= 300_000 for picture in pictures)


def test_readme_docs_and_report_say_the_same_of_ncmi() -> None:
    from wsi_ncmi.reporting.formatting import NCMI_EVIDENCE

    for path in (README, README.parent / "docs" / "explanation" / "ncmi.md"):
        assert NCMI_EVIDENCE in " ".join(path.read_text(encoding="utf-8").split())
