"""The notebooks of the site run from top to bottom, and are stored with their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path) -> None:
    runs = pytest.importorskip("nbmake.nb_run")
    result = runs.NotebookRun(notebook, default_timeout=120).execute()
    assert result.error is None, result.error.trace


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_with_its_pictures_and_without_paths(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    shown = json.dumps(
        [{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs]
    )
    assert "/tmp" not in shown
    assert "/work" not in shown
    assert notebook.stat().st_size < 300_000
