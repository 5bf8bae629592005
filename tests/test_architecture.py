"""Lower floors know nothing of higher ones (ARCHITECTURE: the table of rooms)."""

from __future__ import annotations

import grimp
import pytest

GROUND = {
    "closing",
    "errors",
    "options",
    "files",
    "progress",
    "provenance",
    "_lazy",
    "interrupts",
    "heartbeat",
    "logs",
}

# Room → the rooms that it may import directly, besides the ground floor.
FLOOR_1: dict[str, set[str]] = {"slides": set(), "losses": set(), "mil": set(), "encoders": set()}
MAY_IMPORT: dict[str, set[str]] = {
    **FLOOR_1,
    "tissue": {"slides"},
    "metrics": {"losses"},
    "tiling": {"slides", "tissue"},
    "features": {"slides", "losses", "mil", "encoders", "tissue", "metrics", "tiling"},
    "cohorts": {"features", "slides"},
    "scale": {"features", "slides", "encoders", "tissue", "tiling"},
    "training": {"mil", "losses", "metrics", "cohorts"},
    "vision": {"training", "losses", "metrics"},
    "reporting": {"training", "cohorts", "features", "metrics", "tiling", "tissue", "slides"},
    "prediction": {"reporting", "training", "scale", "cohorts", "features", "metrics", "tiling", "tissue",
                   "slides", "losses", "mil", "encoders"},
    "synthesis": {"slides"},
}  # fmt: skip
BELOW_JOBS = set(MAY_IMPORT)
MAY_IMPORT["jobs"] = BELOW_JOBS
MAY_IMPORT["cli"] = BELOW_JOBS | {"jobs"}
MAY_IMPORT["__main__"] = {"cli"}

# Rooms on one floor that must not know each other are those absent from each other's sets above.


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("wsi_ncmi", cache_dir=None)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_room_has_a_row(graph: grimp.ImportGraph) -> None:
    rooms = {room_of(module) for module in graph.modules} - {None}
    assert rooms <= set(MAY_IMPORT) | GROUND, "a new room needs a row in MAY_IMPORT"
    assert rooms >= set(MAY_IMPORT) | GROUND, "a row without a room"


def test_rooms_import_only_what_their_floor_allows(graph: grimp.ImportGraph) -> None:
    faults = []
    for importer in sorted(graph.modules):
        room = room_of(importer)
        allowed = set(MAY_IMPORT.get(room or "", set())) | GROUND | {room}
        if room in GROUND:
            allowed = GROUND
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            target = room_of(imported)
            if target is not None and room is not None and target not in allowed:
                faults.append(f"{importer} imports {imported}")
    assert not faults, "\n".join(faults)


def test_a_fault_would_be_seen(graph: grimp.ImportGraph) -> None:
    """The check itself can fail: an upward import planted in the graph is reported."""
    planted = grimp.ImportGraph()
    for module in ("wsi_ncmi", "wsi_ncmi.slides.base", "wsi_ncmi.cli.app"):
        planted.add_module(module)
    planted.add_import(importer="wsi_ncmi.slides.base", imported="wsi_ncmi.cli.app")
    with pytest.raises(AssertionError, match=r"slides\.base imports wsi_ncmi\.cli\.app"):
        test_rooms_import_only_what_their_floor_allows(planted)
