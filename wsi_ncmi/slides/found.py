"""A slide that a search has found, and the ids of such slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ncmi.core.values import is_empty, printable, tidy
from wsi_ncmi.slides.dicom_series import Instance
from wsi_ncmi.slides.identity import assign_slide_ids, file_name_of, shown_path


@dataclass(frozen=True)
class FoundSlide:
    """One slide on disk, not yet opened.

    Attributes:
        path: Its main file.
        relative: The path below the root with ``/``; never absolute, and fit to be shown.
        companions: Further files of the same slide.
        problem: Empty, or the reason why it can't be listed.
        dicom: The members of a DICOM slide, the main file first.
    """

    path: Path
    relative: str
    companions: tuple[Path, ...] = ()
    problem: str = ""
    dicom: tuple[Instance, ...] = ()

    def element(self, keyword: str) -> str:
        """A text of a DICOM slide's main file, where it says anything; else empty."""
        text = tidy(self.dicom[0].header.get(keyword, "")) if self.dicom else ""
        return "" if is_empty(text) else printable(text)

    @property
    def names(self) -> tuple[str, ...]:
        """What its DICOM objects call a slide, as file names: container, series."""
        found = map(self.element, ("ContainerIdentifier", "SeriesInstanceUID"))
        return tuple(file_name_of(text) for text in found) if self.dicom else ()


def name_slides(
    found: Sequence[FoundSlide], given: Mapping[str, str] | None = None, dicom_id: str = "container"
) -> list[str]:
    """The ids of slides, each its own.

    Args:
        found: The slides.
        given: Path → id of earlier jobs, which stay.
        dicom_id: What DICOM slides are called by: the ``container`` identifier where only one slide has it
            and else the series, the ``series``, or the ``file``.
    """
    first = ("container", "series", "file").index(dicom_id)
    names = {slide.relative: slide.names for slide in found if slide.dicom}
    return assign_slide_ids([slide.relative for slide in found], given, names, first)


def shown(slide: FoundSlide, prefix: str) -> FoundSlide:
    """The slide below a folder, with a problem where its path is one that tables or results can't bear."""
    path, fault = shown_path(prefix + slide.relative)
    problem = slide.problem or (f"The name {path} {fault}; rename it." if fault else "")
    return replace(slide, relative=path, problem=problem)
