"""Pages of a prediction job: the list of its slides, each slide with its answers, verdicts and drawings."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import shapely

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.core.values import holds_control, tidy
from wsi_ncmi.features.paths import thumbnail_path, tissue_path
from wsi_ncmi.prediction.verdicts import VERDICTS_FILE, Verdict, append_verdict, checked_entries
from wsi_ncmi.prediction.worklist import Worklist
from wsi_ncmi.reporting.heatmaps.files import read_tiles_geojson
from wsi_ncmi.reporting.viewer import Shape, SlidePages, ViewerData
from wsi_ncmi.reporting.viewer.slide_pages import PAGE, Answer, as_json, asset
from wsi_ncmi.slides import Slide, open_slide
from wsi_ncmi.slides.record import SlideRecord, read_slides_csv
from wsi_ncmi.tissue import find_annotations, read_annotations, read_geojson, write_annotations
from wsi_ncmi.tissue.geojson import areas_of

DRAWINGS = "annotations"
"""Folder of the drawings in the output folder."""

_KEPT_SLIDES = 4
_MAX_CORNERS, _MAX_NAME = 20_000, 100
_LIST = {"": "worklist.html", "worklist.js": "worklist.js", "viewer.css": "viewer.css"}
_CASE = {"case.js": "case.js", "drawing.js": "drawing.js"}


@dataclass(eq=False)
class _Opened:
    """A slide that is being looked at.

    Attributes:
        slide: The open slide.
        pages: Its pages; those with the other model's values are at ``other/``.
        users: How many requests are at it.
    """

    slide: Slide
    pages: Mapping[str, SlidePages]
    users: int = 0

    def close(self) -> None:
        for pages in self.pages.values():
            pages.close()
        self.slide.close()


class WorklistPages:
    """Everything that the pages of a folder ask for.

    Args:
        worklist: The slides and their answers.
        slides: Folder of the slides; None shows thumbnails alone.
        annotations: Further annotations to show, file or folder.
    """

    def __init__(self, worklist: Worklist, slides: Path | None, annotations: Path | None = None) -> None:
        self._list, self._slides, self._annotations = worklist, slides, annotations
        self._lock, self._drawing = threading.Lock(), threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._opened: OrderedDict[Any, _Opened] = OrderedDict()

    def get(self, name: str, query: Mapping[str, str]) -> Answer | None:
        """Content and its type; None where there is nothing of that name.

        Raises:
            InputError: Answers, verdicts or drawings can't be read.
            SlideError: The slide or a tile can't be read.
        """
        if name in _LIST:
            return asset(_LIST[name])
        if name == "rows.json":
            return as_json(self._list.page(query))
        slide_id, rest = self._slide_of(name)
        if slide_id is None:
            return None
        if rest == "":
            content, kind = asset("index.html")
            scripts = "".join(f'<script src="{file}" defer></script>\n' for file in _CASE)
            content = content.replace(b"</head>", scripts.encode() + b"</head>")
            return content.replace(b"<body>", b'<body data-case="yes">'), kind
        if rest in _CASE:
            return asset(_CASE[rest])
        if rest in PAGE:  # also where the slide can't be opened
            return asset(PAGE[rest])
        if rest == "thumbnail.jpg":
            path = thumbnail_path(self._list.extracted, slide_id)
            return (path.read_bytes(), "image/jpeg") if path.is_file() else None
        if rest == "case.json":
            return as_json(self._case(slide_id, query))
        if rest == "drawing.json":
            with self._open(slide_id) as opened:
                return as_json(self._drawn(slide_id, opened.slide))
        with self._open(slide_id) as opened:
            key = "other" if rest.startswith("other/") else ""
            pages = opened.pages.get(key)
            return None if pages is None else pages.get(rest.removeprefix("other/"), query)

    def post(self, name: str, content: Any) -> Mapping[str, Any] | None:
        """Stores a verdict or a drawing; None where there is nothing of that name.

        Raises:
            InputError: It can't be stored as it is.
            SlideError: The slide can't be opened.
            OSError: It can't be written.
        """
        slide_id, rest = self._slide_of(name)
        if slide_id is None or rest not in ("verdict", "drawing"):
            return None
        if not isinstance(content, dict):
            raise InputError("A verdict or drawing is a JSON object.")
        return self._judge(slide_id, content) if rest == "verdict" else self._draw(slide_id, content)

    def close(self) -> None:
        """Closes all slides."""
        with self._lock:
            for opened in self._opened.values():
                opened.close()
            self._opened.clear()

    def _slide_of(self, name: str) -> tuple[str | None, str]:
        """The slide of an address ``slides/<id>/…`` and the rest of it; no slide where it isn't known."""
        head, _, tail = name.partition("/")
        quoted, slash, rest = tail.partition("/")
        slide_id = unquote(quoted)
        is_known = head == "slides" and slash and slide_id in self._list.entries
        return (slide_id, rest) if is_known else (None, "")

    def _case(self, slide_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        worklist = self._list
        order = worklist.select(query, keep=slide_id)
        at = order.index(slide_id)
        other = worklist.other
        _, digest = worklist.answers.given_by(worklist.entries[slide_id].answer)
        return {
            **worklist.row(slide_id),
            "model": worklist.answers.model,
            "digest": digest,
            "other_model": None if other is None else other.model,
            "classes": worklist.answers.classes,
            "previous": order[at - 1] if at else None,
            "next": order[at + 1] if at + 1 < len(order) else None,
            "number": at + 1,
            "total": len(order),
            "verdicts": [
                {name: getattr(each, name) for name in ("verdict", "label", "comment", "initials", "time")}
                | {"prediction": each.prediction}
                for each in worklist.verdicts
                if each.slide_id == slide_id
            ],
        }

    def _judge(self, slide_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._list.entries[slide_id].answer
        answers = self._list.answers
        model, digest = answers.given_by(answer)
        if (content.get("prediction"), content.get("digest")) != (answer.prediction, digest):
            raise InputError("The slide was answered anew since the page was loaded; look at it again.")
        verdict, label, comment, initials = checked_entries(content, answer.prediction, answers.classes)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        append_verdict(
            self._list.folder / VERDICTS_FILE,
            Verdict(
                slide_id, answer.case_id, answer.prediction, answer.decision,
                verdict, label, comment, initials, now, model, digest,
            ),
        )  # fmt: skip
        return {"time": now}

    def _drawing_path(self, slide_id: str) -> Path:
        # The name is checked as that of every other product of the slide.
        return self._list.folder / DRAWINGS / tissue_path(Path(), slide_id).name

    def _drawn(self, slide_id: str, slide: Slide) -> dict[str, Any]:
        path = self._drawing_path(slide_id)
        areas = read_geojson(path, slide.bounds) if path.is_file() else []
        return {
            "version": _version(path),
            "areas": [
                {
                    "name": area.name,
                    "rings": [
                        np.asarray(ring.coords)[:, :2].ravel().tolist()
                        for ring in (area.polygon.exterior, *area.polygon.interiors)
                    ],
                }
                for area in areas
            ],
        }

    def _draw(self, slide_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
        path = self._drawing_path(slide_id)
        with self._open(slide_id) as opened, self._drawing:
            slide = opened.slide
            areas = _areas(content.get("areas"), (slide.width_px, slide.height_px))
            if content.get("version") != _version(path):
                raise InputError("Somebody else changed the drawing meanwhile; load the page again.")
            path.parent.mkdir(exist_ok=True)
            if areas:
                write_annotations(path, areas, slide.origin)
            else:
                path.unlink(missing_ok=True)
            return self._drawn(slide_id, slide)

    @contextmanager
    def _open(self, slide_id: str) -> Iterator[_Opened]:
        """The slide with its pages, kept open for a while."""
        folders = [folder for folder in (self._list.folder, self._list.against) if folder]
        tiles = [folder / "attention" / f"{slide_id}.geojson" for folder in folders]
        key = (slide_id, *(path.stat().st_mtime_ns if path.is_file() else 0 for path in tiles))
        with self._lock:
            opening = self._opening.setdefault(slide_id, threading.Lock())
        with opening:
            with self._lock:
                opened = self._opened.get(key)
                if opened is not None:
                    opened.users += 1
                    self._opened.move_to_end(key)
            if opened is None:
                opened = self._opened_now(slide_id, tiles)
                opened.users = 1
                with self._lock:
                    self._opened[key] = opened
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                idle = [each for each, slide in self._opened.items() if not slide.users]
                for each in idle[: max(0, len(self._opened) - _KEPT_SLIDES)]:
                    self._opened.pop(each).close()

    def _opened_now(self, slide_id: str, tiles: Sequence[Path]) -> _Opened:
        if self._slides is None:
            raise SlideError("Give the folder of the slides with --slides to zoom into them and to draw.")
        record = self._record(slide_id)
        slide = open_slide(record.files(self._slides))
        try:
            return _Opened(slide, self._pages(slide_id, slide, record, tiles))
        except BaseException:
            slide.close()
            raise

    def _record(self, slide_id: str) -> SlideRecord:
        table = self._list.extracted / "slides.csv"
        try:
            records = read_slides_csv(table)
        except InputError as error:
            raise SlideError(f"Where the slide lies isn't known: {error}") from error
        found = next((record for record in records if record.slide_id == slide_id), None)
        if found is None or found.problem:
            reason = found.problem if found else f"{table.name} doesn't list it"
            raise SlideError(f"The slide can't be opened ({reason}).")
        return found

    def _pages(
        self, slide_id: str, slide: Slide, record: SlideRecord, tiles: Sequence[Path]
    ) -> dict[str, SlidePages]:
        size = (slide.width_px, slide.height_px)
        if size != (record.width_px, record.height_px):
            raise SlideError(
                f"The slide has {size[0]} × {size[1]} px, the one that was predicted {record.width_px} × "
                f"{record.height_px}; give the folder of those with --slides."
            )
        mpp = None if record.mpp_x is None or record.mpp_y is None else (record.mpp_x, record.mpp_y)
        facts = {"size": "{} × {} px".format(*size), "levels": str(len(slide.levels)), "reader": slide.reader}
        if mpp:
            facts["resolution"] = f"{np.mean(mpp):.4g} µm per pixel ({record.mpp_source})"
        data = ViewerData(slide_id, slide, mpp, shapes=tuple(self._shapes(slide_id, slide)), facts=facts)
        pages = {}
        for key, path in zip(("", "other"), tiles, strict=False):
            there = path.is_file()
            values = read_tiles_geojson(path, slide_id, size, slide.origin) if there else None
            note = (
                ()
                if there
                else ("There are no tile values: predict ran without GeoJSON, or found no tissue.",)
            )
            pages[key] = SlidePages(replace(data, tiles=values, notes=note))
        return pages

    def _shapes(self, slide_id: str, slide: Slide) -> Iterator[Shape]:
        path = tissue_path(self._list.extracted, slide_id)
        if path.is_file():
            yield Shape("tissue", [area.polygon for area in read_geojson(path, slide.bounds)])
        given = self._annotations
        if given is not None and given.is_dir():
            given = find_annotations(given, slide_id, slide.path.name)
        if given is not None:
            yield from annotation_shapes(given, slide)


def annotation_shapes(path: Path, slide: Slide) -> list[Shape]:
    """The areas of a file of annotations, by class.

    Raises:
        InputError: It can't be read.
    """
    areas = read_annotations(path, slide.bounds)
    return [
        Shape(f"annotation {name}" if name else "annotations", [a.polygon for a in areas if a.name == name])
        for name in sorted({area.name for area in areas})
    ]


def _version(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _areas(drawn: Any, size: tuple[int, int]) -> dict[str, list[shapely.Polygon]]:
    """Class → polygons of what a page sent, valid and inside the slide.

    Raises:
        InputError: It is no list of areas with a class and corners.
    """
    slide = shapely.box(0, 0, *size)
    found: dict[str, list[shapely.Polygon]] = {}
    try:
        for area in drawn:
            name = tidy(area["name"])
            if not name or len(name) > _MAX_NAME or holds_control(name):
                raise InputError(f"An area needs a class of at most {_MAX_NAME} letters.")
            if sum(map(len, area["rings"])) > 2 * _MAX_CORNERS:
                raise InputError(f"An area has at most {_MAX_CORNERS:,} corners.")
            rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in area["rings"]]
            if not all(np.isfinite(ring).all() for ring in rings):
                raise ValueError("a corner is no finite number")
            parts, _ = areas_of([shapely.Polygon(rings[0], rings[1:])])
            inside = [part if slide.covers(part) else slide.intersection(part) for part in parts]
            found.setdefault(name, []).extend(areas_of(inside)[0])
    except (LookupError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InputError(
            f"The drawing can't be stored ({error}); an area has three corners on the slide or more."
        ) from error
    return found
