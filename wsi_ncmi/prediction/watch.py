"""The state of a watched folder: slides that are whole, done or in quarantine, across restarts.

Slides are never moved or changed. ``watch.json`` says which were seen; a slide that failed is listed in
``quarantine.csv`` and is not tried again before its files, or what was wrong beside them, change.
"""

import csv
import io
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import parse_json, write_json, write_text
from wsi_ncmi.slides import earlier_records
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.found import FoundSlide, name_slides
from wsi_ncmi.slides.identity import assign_slide_ids, file_name_of

_LOG = logging.getLogger(__name__)
_SCHEMA = "wsi-ncmi-watch/1"
_COLUMNS = ("slide_id", "path", "reason", "utc")


@dataclass(frozen=True)
class WatchedSlide:
    """A slide that was predicted or failed.

    Attributes:
        signature: Sizes and times of its files at that time.
        status: ``done`` (predicted, or failed as is known) or ``quarantined``.
        reason: Why it is in quarantine, or is predicted without DICOM objects.
        utc: When it was predicted.
        slide_id: Its id, which stays; empty in files of 0.1.0.
    """

    signature: str
    status: str
    reason: str = ""
    utc: str = ""
    slide_id: str = ""


class WatchedFolder:
    """Slides of a folder by what became of them.

    Args:
        root: The folder.
        out: Output folder, with ``watch.json`` where it was watched before.
        extracted: Output folder of the extraction, whose ``slides.csv`` knows ids too.
        digest: Digest of the model.
        stays: Slide id → whether its answer stays, where it has one that is known; others are answered again
            where another model was in use.
        settle_s: Seconds for which the files of a slide must not have changed before it is read.

    Attributes:
        file: ``watch.json``.
        quarantine: ``quarantine.csv``.

    Raises:
        InputError: ``watch.json`` can't be read.
    """

    def __init__(
        self, root: Path, out: Path, extracted: Path, digest: str, stays: Mapping[str, bool], settle_s: float
    ) -> None:
        self._root, self._extracted, self._digest, self._settle_s = root, extracted, digest, settle_s
        self.file, self.quarantine = out / "watch.json", out / "quarantine.csv"
        self._seen = self._load(stays)
        self._arrived: dict[str, tuple[str, float]] = {}
        self._said: set[str] = set()

    @property
    def waiting(self) -> dict[str, float]:
        """Path below the folder → since when a slide waits, by the clock of :meth:`ready`."""
        return {path: since for path, (_, since) in self._arrived.items()}

    @property
    def slides(self) -> dict[str, WatchedSlide]:
        """Path below the folder → slide that was seen, sorted."""
        return dict(sorted(self._seen.items()))

    def given(self) -> dict[str, str]:
        """Path below the folder → id of the slides that have one, of those that are gone too."""
        seen = {path: slide.slide_id for path, slide in self._seen.items() if slide.slide_id}
        extracted = earlier_records(self._extracted / "slides.csv", self._root)
        return {path: record.slide_id for path, record in extracted.items()} | seen

    def replaced(self, slides: Mapping[str, FoundSlide]) -> frozenset[str]:
        """Those of the slides, by id, that were seen before with other files."""
        return frozenset(
            slide_id
            for slide_id, slide in slides.items()
            if slide.relative in self._seen and self._seen[slide.relative].signature
        )

    def ready(self, now: float) -> dict[str, FoundSlide]:
        """New or changed slides whose files don't change any more, by id.

        Those come first that were never answered, and of these those that wait longest.

        Args:
            now: Seconds of a clock that is never set, such as ``time.monotonic``.
        """
        found = find_slides(self._root, remark=self._remark)
        ids = name_slides(found, self.given())
        ready: dict[str, FoundSlide] = {}
        arrived: dict[str, tuple[str, float]] = {}
        for slide_id, slide in zip(ids, found, strict=True):
            signature = _signature(slide)
            known = self._seen.get(slide.relative)
            if not signature or (known is not None and known.signature == signature):
                continue
            before = self._arrived.get(slide.relative)
            since = before[1] if before is not None and before[0] == signature else now
            arrived[slide.relative] = (signature, since)
            if now - since >= self._settle_s:
                ready[slide_id] = slide
        self._arrived = arrived

        def order(item: tuple[str, FoundSlide]) -> tuple[bool, float, str]:
            path = item[1].relative
            return path in self._seen, arrived[path][1], item[0]

        return dict(sorted(ready.items(), key=order))

    def _remark(self, text: str) -> None:
        if text not in self._said:  # the folder is searched again and again
            self._said.add(text)
            _LOG.warning(text)

    @staticmethod
    def signatures(slides: Mapping[str, FoundSlide]) -> dict[str, str]:
        """Slide id → sizes and times of its files, to be taken before they are read."""
        return {slide_id: _signature(slide) for slide_id, slide in slides.items()}

    def record(
        self,
        slides: Mapping[str, FoundSlide],
        signatures: Mapping[str, str],
        problems: Mapping[str, str],
        remarks: Mapping[str, str],
    ) -> None:
        """Notes slides as done, or in quarantine where they had a problem, and writes both files.

        Args:
            slides: Slide id → slide of this round.
            signatures: From :meth:`signatures`.
            problems: Slide id → why it failed.
            remarks: Slide id → what it lacks though it is done.
        """
        utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for slide_id, slide in slides.items():
            status = "quarantined" if slide_id in problems else "done"
            reason = problems.get(slide_id) or remarks.get(slide_id, "")
            self._seen[slide.relative] = WatchedSlide(signatures[slide_id], status, reason, utc, slide_id)
            self._arrived.pop(slide.relative, None)
        content = {path: asdict(seen) for path, seen in self.slides.items()}
        write_json(self.file, {"schema": _SCHEMA, "model": self._digest, "slides": content})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for path, seen in self.slides.items():
            if seen.status == "quarantined":
                writer.writerow((seen.slide_id, path, seen.reason, seen.utc))
        write_text(self.quarantine, text.getvalue())

    def _load(self, stays: Mapping[str, bool]) -> dict[str, WatchedSlide]:
        if not self.file.is_file():
            return {}
        try:
            content = parse_json(self.file.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ValueError(f"schema {content['schema']!r}")
            seen = {str(path): WatchedSlide(**values) for path, values in content["slides"].items()}
            given = {path: slide.slide_id for path, slide in seen.items()}
            ids = assign_slide_ids(
                list(seen), given, {path: (file_name_of(name),) for path, name in given.items()}
            )
            seen = {
                path: replace(slide, slide_id=slide_id)
                for slide_id, (path, slide) in zip(ids, seen.items(), strict=True)
            }
            same = content["model"] == self._digest
            again = {
                path: replace(slide, signature="")
                for path, slide in seen.items()
                if not stays.get(slide.slide_id, same)
            }
            if again:
                _LOG.info("%s answered by another model: again.", counted(len(again), "slide"))
            return seen | again
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.file} can't be read ({error}); remove it or choose another --out."
            ) from error


def _signature(slide: FoundSlide) -> str:
    """Sizes and times of a slide's files, and what was wrong beside them; empty while one is away."""
    parts: list[str] = []
    for file in (slide.path, *slide.companions):
        try:
            status = file.stat()
        except OSError:
            if not slide.problem:
                return ""
            break
        parts.append(f"{status.st_size}:{status.st_mtime_ns}")
    # A problem may lie in what is no file of the slide, such as a pipe beside it, and go while they stay.
    return " ".join([*parts, f"problem: {slide.problem}"] if slide.problem else parts)
