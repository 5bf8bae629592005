"""Fixtures that every room's tests share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time: a suite that fails by luck is no answer. "make search" draws new ones.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("suite")

REAL_DATA_VARIABLE = "WSI_NCMI_TEST_DATA"

# Files that take longest (seconds of a core in tests of one file: 150 to 15), longest first. "make test" deals files
# to processes in this order, so that none of them ends alone.
LONG = (
    "test_demo.py",
    "test_real_texture.py",
    "test_local.py",
    "test_ray.py",
    "test_kills.py",
    "test_broken_input.py",
    "test_encoder_in_parent.py",
    "test_trainer.py",
    "test_direct_pixels.py",
    "test_grid.py",
    "test_extension.py",
    "test_watch.py",
    "test_pipeline.py",
    "test_job.py",
    "test_distributed.py",
    "test_network.py",
    "test_level_check.py",
    "test_extract_slide.py",
    "research",
    "compatibility",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; all others stay in their order."""

    def place(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(LONG) if name in item.path.parts), len(LONG))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A command of one test that ran with --quiet is not to silence the next test's log."""
    levels = {name: logging.getLogger(name).level for name in (None, "wsi_ncmi")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real slides, bags and weights; without it the test is skipped with the reason.

    A variable that is set but names no such folder is an error, not a reason to skip.
    """
    value = os.environ.get(REAL_DATA_VARIABLE)
    if not value:
        pytest.skip(f"{REAL_DATA_VARIABLE} is not set: no real data on this machine")
    folder = Path(value).resolve()
    if not (folder / "slides").is_dir():
        pytest.fail(f"{REAL_DATA_VARIABLE}={value} has no folder slides/")
    return folder


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages as good as not installed, whether they were imported before or not."""
    hidden: set[str] = set()

    class Without(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            return None if fullname.partition(".")[0] in hidden else super().find_spec(fullname, path, target)

    monkeypatch.setattr(
        sys, "meta_path", [Without if finder is PathFinder else finder for finder in sys.meta_path]
    )

    def hide(*packages: str) -> None:
        hidden.update(packages)
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            monkeypatch.delitem(sys.modules, name)

    return hide
