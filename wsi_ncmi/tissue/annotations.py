"""Annotation files of slides: finds them, reads QuPath's and ASAP's formats, applies them to tissue masks."""

import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import check_regular
from wsi_ncmi.core.values import tidy
from wsi_ncmi.slides import SlideIndex, slide_id_of, slide_key
from wsi_ncmi.tissue.config import AnnotationConfig
from wsi_ncmi.tissue.geojson import Annotation, Annotations, parse_geojson
from wsi_ncmi.tissue.mask import TissueMask, raster

ANNOTATION_SUFFIXES = (".geojson.gz", ".geojson", ".json.gz", ".json", ".zip", ".xml")
_MAX_BYTES = 1 << 29


def match_annotations(folder: Path, slides: Mapping[str, str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """The annotation files of slides, and the files that belong to none.

    A file is named after the slide's id or its file, with or without the slide's own extension (QuPath
    writes ``a.svs.geojson``), and ends with one of ``ANNOTATION_SUFFIXES``, in upper or lower case.

    Args:
        folder: Folder of annotation files.
        slides: Slide id → name of its file, empty where it isn't known.

    Raises:
        InputError: The folder isn't there.
    """
    if not folder.is_dir():
        raise InputError(f"The annotation folder {folder} isn't there; check --annotations.")
    index = SlideIndex(slides)
    of_name: dict[str, list[str]] = {}
    for slide_id, name in slides.items():
        of_name.setdefault(slide_key(name), []).append(slide_id)
    found: dict[str, list[Path]] = {}
    left: list[Path] = []
    for path in sorted(folder.iterdir()):
        suffix = next((end for end in ANNOTATION_SUFFIXES if path.name.lower().endswith(end)), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        stem = tidy(path.name[: -len(suffix)])
        candidates = index.candidates(stem) or of_name.get(slide_key(stem), [])
        own = slides[candidates[0]] if len(candidates) == 1 else ""
        extension = stem[len(slide_id_of(stem)) :].lower()
        # ``a.tif.geojson`` was drawn on another file than ``a.svs``, perhaps in other pixels.
        if len(candidates) == 1 and (
            not (own and extension) or stem in slides or own.lower().endswith(extension)
        ):
            found.setdefault(candidates[0], []).append(path)
        else:
            left.append(path)
    return found, left


def only_annotation(slide_id: str, files: Sequence[Path]) -> Path | None:
    """The one annotation file of a slide, None where there is none.

    Raises:
        InputError: There are several.
    """
    if len(files) > 1:
        names = " and ".join(path.name for path in files)
        count = "two" if len(files) == 2 else len(files)
        raise InputError(f"Slide {slide_id} has {count} annotation files, {names}; keep one of them.")
    return files[0] if files else None


def find_annotations(folder: Path, slide_id: str, name: str = "") -> Path | None:
    """The annotation file of a slide; see ``match_annotations`` and ``only_annotation``."""
    return only_annotation(slide_id, match_annotations(folder, {slide_id: name})[0].get(slide_id, ()))


def read_annotations(path: Path, bounds: tuple[int, int, int, int] | None = None) -> Annotations:
    """Reads QuPath's GeoJSON (also gzipped or zipped) or ASAP's XML, told apart by their content.

    Args:
        path: The file.
        bounds: The slide's scanned area (``Slide.bounds``), from whose corner QuPath counts; ASAP counts from
            the slide's own.

    Returns:
        Its areas in level-0 pixels, each valid, with notes on what was repaired or left out.

    Raises:
        InputError: It can't be read, is neither format, or holds no area.
    """
    try:
        data = _unpacked(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or "it ends too early"
        raise InputError(
            f"{path.name} can't be read as annotations ({reason}); export them from QuPath or ASAP again."
        ) from error
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"<" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        from wsi_ncmi.tissue.asap import parse_asap

        return parse_asap(data, path.name)
    if not start:
        raise InputError(
            f"{path.name} can't be read as annotations (it is empty); export them from QuPath or ASAP again."
        )
    text = data.decode("utf-8-sig", errors="replace")
    areas = parse_geojson(text, path.name, bounds)
    if "\ufffd" in text:
        areas = Annotations(areas, [*areas.notes, "letters that are no UTF-8 were replaced"])
    if not len(areas):
        raise InputError(
            f"{path.name} holds no annotation; draw one and export it again, or remove the file to use "
            "the automatic tissue."
        )
    return areas


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, or of the one file in an archive, up to a limit."""
    check_regular(path)
    with path.open("rb") as handle:
        data = handle.read(_MAX_BYTES + 1)
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as packed:
            data = packed.read(_MAX_BYTES + 1)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise ValueError(f"it is an archive of {len(members)} files, not of one")
            with archive.open(members[0]) as member:
                data = member.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError("it is larger than 512 MiB")
    return data


_SAID = {
    "tissue": "tissue is what was outlined by hand",
    "include": "only tissue inside {areas} drawn by hand counts",
    "add": "the tissue includes {areas} drawn by hand",
    "exclude": "the tissue excludes {areas} drawn by hand",
}


def apply_annotations(
    mask: TissueMask, annotations: Sequence[Annotation], options: AnnotationConfig | None = None
) -> TissueMask:
    """Replaces, restricts, extends and cuts a mask by areas drawn by hand.

    In this order: areas of a ``tissue`` class replace the mask, ``include`` restricts it, ``add`` extends it,
    ``exclude`` cuts it. Areas of other classes do nothing. No minimum area applies to the
    result.

    Args:
        mask: The automatic mask.
        annotations: The areas, in level-0 pixels.
        options: Which class names do what; the documented defaults where None.

    Returns:
        A new mask; its parameters tell the annotations' hash and how many areas of each role there were.
    """
    roles = options or AnnotationConfig()
    drawn: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        drawn.setdefault(roles.role_of(annotation.name), []).append(annotation)

    def covered(role: str) -> NDArray[np.bool_]:
        polygons = [annotation.polygon for annotation in drawn[role]]
        return raster(polygons, mask.mask.shape, mask.downsample_x, mask.downsample_y)

    result = covered("tissue") if "tissue" in drawn else mask.mask.copy()
    if "include" in drawn:
        result &= covered("include")
    if "add" in drawn:
        result |= covered("add")
    if "exclude" in drawn:
        result &= ~covered("exclude")
    counts = Counter({role: len(areas) for role, areas in drawn.items()})
    known = {role: counts[role] for role in ("tissue", "include", "add", "exclude", "other")}
    notes = [] if "tissue" in drawn or not mask.note else [mask.note]
    notes += [
        said.format(areas=counted(counts[role], "area")) for role, said in _SAID.items() if role in drawn
    ]
    if set(drawn) <= {"other"}:
        notes.append("no area of the annotations has a class that changes the tissue")
    height, width = mask.mask.shape
    slide = shapely.box(0, 0, width * mask.downsample_x, height * mask.downsample_y)
    outside = sum(not slide.intersects(annotation.polygon) for annotation in annotations)
    if outside:
        notes.append(f"{counted(outside, 'area')} of the annotations outside of the slide")
    notes += getattr(annotations, "notes", ())
    identity = Annotations(annotations).sha256
    return replace(
        mask,
        mask=result,
        parameters={**mask.parameters, "annotations": {"sha256": identity, **known}},
        note="; ".join(notes),
    )
