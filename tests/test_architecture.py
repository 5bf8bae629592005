"""Imports against the table of layers: no package knows one of its own layer or above."""

from __future__ import annotations

import grimp
import pytest

# Package → layer (the table of CONTRIBUTING.md): a package imports from layers below its own, and from itself.
LAYERS = {
    "core": 0,
    "slides": 1, "losses": 1, "mil": 1, "encoders": 1, "parallel": 1,
    "tissue": 2, "metrics": 2,
    "tiling": 3,
    "features": 4,
    "extraction": 5, "cohorts": 5,
    "training": 6,
    "vision": 7, "reporting": 7,
    "prediction": 8,
    "synthesis": 9, "doctor": 9,
    "workflows": 10,
    "cli": 11,
    "__main__": 12,
}  # fmt: skip
# Packages that must stay ignorant of slides, models and stages although their layer would allow more.
ONLY_CORE_AND_SLIDES = {"synthesis"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("wsi_ncmi", cache_dir=None)


def package_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_package_has_a_layer(graph: grimp.ImportGraph) -> None:
    assert {package_of(module) for module in graph.modules} - {None} == set(LAYERS)


def faults_of(graph: grimp.ImportGraph) -> list[str]:
    faults = []
    for importer in sorted(graph.modules):
        package = package_of(importer)
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            target = package_of(imported)
            if package is None or target is None or target == package:
                continue
            too_high = LAYERS[target] >= LAYERS[package]
            if too_high or (package in ONLY_CORE_AND_SLIDES and target not in {"core", "slides"}):
                faults.append(f"{importer} imports {imported}")
    return faults


def test_packages_import_only_from_layers_below(graph: grimp.ImportGraph) -> None:
    assert not (faults := faults_of(graph)), "\n".join(faults)


def test_nothing_is_imported_in_a_circle(graph: grimp.ImportGraph) -> None:
    """No module reaches itself through what it imports, at whatever place in its file."""
    circles = []
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            chain = graph.find_shortest_chain(importer=imported, imported=module)
            if chain:
                circles.append(" -> ".join((module, *chain)))
    assert not circles, "\n".join(circles)


def test_the_wheel_knows_nothing_of_what_stands_beside_it(graph: grimp.ImportGraph) -> None:
    beside = {"research", "benchmarks", "pipelines", "tests"}
    external = grimp.build_graph("wsi_ncmi", include_external_packages=True, cache_dir=None)
    assert not beside & external.modules


def planted(*imports: tuple[str, str]) -> grimp.ImportGraph:
    graph = grimp.ImportGraph()
    for importer, imported in imports:
        for module in (importer, imported):
            graph.add_module(module)
        graph.add_import(importer=importer, imported=imported)
    return graph


def test_an_import_upwards_would_be_seen() -> None:
    """The check itself can fail: upward, sideways and private imports planted in a graph are reported."""
    up = ("wsi_ncmi.slides.base", "wsi_ncmi.cli.app")
    sideways = ("wsi_ncmi.losses.base", "wsi_ncmi.mil.base")
    private = ("wsi_ncmi.synthesis.slide", "wsi_ncmi.tissue.mask")
    sound = ("wsi_ncmi.tissue.mask", "wsi_ncmi.slides.base")
    for importer, imported in (up, sideways, private):
        with pytest.raises(AssertionError, match=f"{importer} imports {imported}"):
            test_packages_import_only_from_layers_below(planted((importer, imported), sound))
    test_packages_import_only_from_layers_below(planted(sound))


def test_a_circle_would_be_seen() -> None:
    a, b, c = (f"wsi_ncmi.slides.{name}" for name in "abc")
    with pytest.raises(AssertionError, match=r"slides\.a -> wsi_ncmi\.slides\.b"):
        test_nothing_is_imported_in_a_circle(planted((a, b), (b, c), (c, a)))
