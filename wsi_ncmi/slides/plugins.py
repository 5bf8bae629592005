"""Readers that other installed packages announce: entry points of the group ``wsi_ncmi.readers``.

The name of an entry point is the extension that it reads; its object opens a path and gives a slide. So the
extensions are known without the import of any plug-in.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Slide

ENTRY_POINTS = "wsi_ncmi.readers"
"""The group, as in ``[project.entry-points."wsi_ncmi.readers"]``."""


@cache
def announced() -> dict[str, tuple[EntryPoint, ...]]:
    """Lower-case extension such as ``.kfb`` → the entry points that announce a reader of it."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
        extension = f".{point.name.lower().strip('.')}"
        found[extension] = (*found.get(extension, ()), point)
    return found


@cache
def plugin_fault(extension: str) -> str:
    """Why the plug-in of an extension can't be used, as half a sentence with its package; else empty."""
    points = announced()[extension]
    if len(points) > 1:
        return (
            f"{len(points)} packages announce a reader of it ({', '.join(map(package_of, points))}); keep one"
        )
    try:
        made = _loaded(points[0])
    except (Exception, SystemExit) as error:  # whatever a package does when it is imported
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        package = package_of(points[0])
        return f"the package {package}, which reads it, can't be loaded ({reason}); install it again"
    if not callable(made):
        kind = type(made).__name__
        return f"the package {package_of(points[0])}, which reads it, announces a {kind}, which opens nothing"
    return ""


def open_with_plugin(extension: str, path: Path) -> Slide:
    """Opens a file with the plug-in of its extension."""
    (point,) = announced()[extension]
    slide = _loaded(point)(path)
    if not isinstance(slide, Slide):
        raise SlideOpenError(
            f"the package {package_of(point)} gave a {type(slide).__name__} for it, not a wsi_ncmi Slide"
        )
    slide.reader = f"plugin:{extension[1:]}"
    slide.note = f"Read by the package {package_of(point)}. {slide.note}".strip()
    return slide


def plugin_companions(extension: str, path: Path) -> Iterable[Path]:
    """Further files of a slide, where its plug-in has a function ``companions`` that tells them."""
    told: Callable[[Path], Iterable[Path]] | None = None
    if not plugin_fault(extension):
        told = getattr(_loaded(announced()[extension][0]), "companions", None)
    return told(path) if told is not None else ()


def package_of(point: EntryPoint) -> str:
    """Name and version of the package of an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _loaded(point: EntryPoint) -> Any:
    return point.load()
