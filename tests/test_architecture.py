"""Imports against the table of layers: no package knows one of its own layer or above."""

from __future__ import annotations

import ast
import collections
import re
from pathlib import Path

import grimp
import pytest

import wsi_ncmi

PACKAGE = Path(wsi_ncmi.__file__).parent

# Package → layer (the table of CONTRIBUTING.md): a package imports from layers below its own, and from itself.
LAYERS = {
    "core": 0,
    "losses": 1, "mil": 1, "encoders": 1, "parallel": 1,
    "slides": 2,
    "tissue": 3, "metrics": 3,
    "tiling": 4,
    "features": 5,
    "extraction": 6, "cohorts": 6,
    "training": 7,
    "reporting": 8,
    "prediction": 9, "vision": 9,
    "synthesis": 10, "doctor": 10, "service": 10,
    "workflows": 11,
    "cli": 12,
    "__main__": 13,
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


def public_names(source: str) -> set[str]:
    """What a module defines for others: its ``__all__``, or all that has no underscore in front."""
    tree = ast.parse(source)
    defined: set[str] = set()
    listed: set[str] | None = None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            if names == {"__all__"} and node.value is not None and isinstance(node.value, ast.List):
                listed = set(ast.literal_eval(node.value))
            defined |= names
    return defined & listed if listed is not None else {name for name in defined if not name.startswith("_")}


def defined_twice(sources: dict[str, str]) -> dict[str, list[str]]:
    homes = collections.defaultdict(list)
    for name, source in sources.items():
        for public in public_names(source):
            homes[public].append(name)
    return {name: sorted(found) for name, found in sorted(homes.items()) if len(found) > 1}


def test_no_public_name_is_defined_twice() -> None:
    """One name is one thing (the verbs of the command line aside, which nobody imports)."""
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"]
    assert not defined_twice({str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in files})


def test_a_name_defined_twice_would_be_seen() -> None:
    sources = {
        "a": "def read(): ...",
        "b": "__all__ = ['read', 'x']\nread = 1",
        "c": "__all__ = ['y']\nread = 1",
    }
    assert defined_twice(sources) == {"read": ["a", "b"]}


def test_a_module_says_what_it_holds_not_what_it_asks() -> None:
    question = re.compile(r"(What|Who|Whose|Whether|Which|Where|How|When|Why)\b")
    first = {
        str(path.relative_to(PACKAGE)): (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
        for path in PACKAGE.rglob("*.py")
    }
    assert not [name for name, text in first.items() if not text or question.match(text)]
