"""Base classes of the formats: reading slide by slide, writing whole files or none."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.core.leftovers import remove_leftovers
from wsi_ncmi.core.values import holds_control
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag
from wsi_ncmi.features.storage import translate_os_errors


class FeatureSet(ABC):
    """Features of a cohort in one format; nothing but names is read until it is asked for.

    Attributes:
        kind: Name of the format.
        path: Where it lies.
        slide_ids: Ids, sorted; of patients where ``level`` is ``patient``.
        level: What a row is a vector of: ``tile``, ``slide`` or ``patient``.
    """

    kind: ClassVar[str]
    path: Path
    slide_ids: tuple[str, ...]
    level: str = "tile"

    @abstractmethod
    def where(self, slide_id: str) -> Path:
        """The file that holds a slide."""

    @abstractmethod
    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """Tiles and dimensions, without reading the features, and what else the file tells, by its own names.

        That is about encoder, resolution and tiles.

        Raises:
            ExternalFileError: The file is damaged or is no such file.
        """

    def shape(self, slide_id: str) -> tuple[int, int]:
        """Tiles and dimensions alone; see :meth:`header`."""
        return self.header(slide_id)[0]

    @abstractmethod
    def features(self, slide_id: str) -> NDArray[Any]:
        """Features (N, D), floating point as stored.

        Raises:
            ExternalFileError: The file is damaged or is no such file.
        """

    @abstractmethod
    def bag(self, slide_id: str) -> TileBag:
        """Features, coordinates and metadata.

        Raises:
            ExternalFileError: The file is damaged or is no such file.
        """

    def encoder(self) -> str:
        """Name of the encoder, empty where unknown."""
        return ""

    def labels(self) -> Mapping[str, str]:
        """Classes by slide, for formats that carry them."""
        return {}


def survey(source: FeatureSet) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Makes sure that all files are of one encoder and one tile grid, as far as they tell.

    Returns:
        The shape of each slide whose file can be read, and what is wrong with the others.

    Raises:
        InputError: Two slides differ in dimensions, encoder, resolution or tile size.
    """
    shapes: dict[str, tuple[int, int]] = {}
    problems: list[str] = []
    firsts: dict[str, tuple[Any, str]] = {}
    for slide_id in source.slide_ids:
        try:
            shapes[slide_id], told = source.header(slide_id)
        except ExternalFileError as problem:
            problems.append(str(problem))
            continue
        for key, value in told.items():
            known, first = firsts.setdefault(key, (value, slide_id))
            if value != known and not (
                isinstance(value, float)
                and isinstance(known, float)
                and math.isclose(value, known, rel_tol=1e-3)
            ):
                raise InputError(
                    f"{source.path} mixes features: {key} is {known!r} of slide {first!r} and {value!r} of "
                    f"{slide_id!r}; keep one encoder and one tile grid in a folder."
                )
    # Without tiles there is no vector of a slide, and no width.
    widths = {width: slide_id for slide_id, (_, width) in reversed(shapes.items()) if width}
    if len(widths) > 1:
        (a, slide_a), (b, slide_b) = sorted(widths.items())[:2]
        raise InputError(
            f"{source.path} mixes encoders: slide {slide_a!r} has embeddings of {a} dimensions and "
            f"{slide_b!r} of {b}; keep one encoder in a folder."
        )
    return shapes, problems


class FolderSet(FeatureSet):
    """A folder with one HDF5 file a slide.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = {
            bare_id(file, ".h5"): file for file in path.glob("*.h5") if not file.name.startswith(".")
        }
        self.slide_ids = tuple(sorted(self._files))

    def where(self, slide_id: str) -> Path:
        """See the base class."""
        return self._files[slide_id]


@dataclass(frozen=True)
class WriteResult:
    """Result of writing one slide.

    Attributes:
        status: ``done``, or ``skipped`` where every file was there with the same content.
        path: The slide's (first) file.
        notes: What was changed or left out on the way, one phrase each.
    """

    status: Literal["done", "skipped"]
    path: Path
    notes: tuple[str, ...] = ()


class SetWriter(ABC):
    """Writes slides in one format into a folder.

    Args:
        out: The folder.
        overwrite: Replace files of other content.
    """

    kind: ClassVar[str]

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        self.out, self.overwrite = out, overwrite

    def write(self, bag: TileBag) -> WriteResult:
        """Writes a slide; each file appears whole or not at all, and none of other content is replaced.

        Raises:
            ExternalFileError: The format can't express it, or a file of other content is there.
            JobStoppedError: The disk is full or can't be written to.
        """
        # Ids come from tables and groups of others; they must stay names.
        odd = bag.slide_id[:1] in ("", ".") or re.search(r"[/\\]", bag.slide_id)
        if odd or holds_control(bag.slide_id):
            raise ExternalFileError(f"The slide id {bag.slide_id!r} can't name a file; rename the slide.")
        return self._write(bag)

    @abstractmethod
    def _write(self, bag: TileBag) -> WriteResult:
        """See ``write``."""


class ImageWriter(SetWriter):
    """A writer that makes its files in memory, so that what is there can be compared byte by byte."""

    @abstractmethod
    def files(self, bag: TileBag) -> tuple[dict[Path, bytes], tuple[str, ...]]:
        """The files of a slide with their content, the same bytes for the same bag, and notes.

        Raises:
            ExternalFileError: The format can't express it.
        """

    def _write(self, bag: TileBag) -> WriteResult:
        contents, notes = self.files(bag)
        missing = {path: data for path, data in contents.items() if not _holds(path, data)}
        if not self.overwrite:
            for path in missing:
                if path.exists():
                    raise conflict(path)
        for path, data in missing.items():
            with translate_os_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(path)
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
        return WriteResult("done" if missing else "skipped", next(iter(contents)), notes)


def conflict(path: Path) -> ExternalFileError:
    """The error over a file of other content."""
    return ExternalFileError(
        f"{path} is there with other content; give --overwrite to replace it, or another --out."
    )


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def bare_id(file: Path, suffix: str) -> str:
    """The id that a file's name gives: the name without ``suffix``; other dots stay, TCGA names have them."""
    return file.name[: -len(suffix)]
