"""Every snippet of a newcomer runs (``tests/api/snippets.py``)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.api.snippets import JOBS, SNIPPETS, make_inputs, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Slides and labels, and what the first jobs make of them."""
    found = tmp_path_factory.mktemp("snippets")
    make_inputs(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        for code in JOBS.values():
            run(code)
    return found


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    logging.captureWarnings(False)
    run(SNIPPETS[name])
