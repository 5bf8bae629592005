"""Predicting what arrives in a folder: new slides as they are whole, bad ones set aside, until stopped.

The slides themselves are never moved or changed. What was seen is in ``watch.json``; a slide that failed
stands in ``quarantine.csv`` and is not tried again before its file changes.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import write_json, write_text
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.slides.discovery import FoundSlide, find_slides
from wsi_ncmi.slides.names import assign_slide_ids
from wsi_ncmi.workflows.prediction import PredictionRequest, Predictor
from wsi_ncmi.workflows.result import JobResult

__all__ = ["WatchConfig", "watch"]

_LOG = logging.getLogger(__name__)
_SCHEMA = "wsi-ncmi-watch/1"
_TIMEOUT_S = 3600.0
_COLUMNS = ("slide_id", "path", "reason", "utc")


@dataclass(frozen=True)
class WatchConfig:
    """How a folder is watched.

    Attributes:
        interval_s: Seconds between two looks.
        settle_s: Seconds for which a slide's files must not have changed before it is taken for whole.
        until_idle_s: Stop when nothing new has come for so many seconds; None = never.
    """

    interval_s: float = 10.0
    settle_s: float = 30.0
    until_idle_s: float | None = None

    def __post_init__(self) -> None:
        if (
            self.interval_s <= 0
            or self.settle_s < 0
            or (self.until_idle_s is not None and self.until_idle_s < 0)
        ):
            raise InputError("The times of --watch must be positive numbers of seconds.")


@dataclass(frozen=True)
class _Seen:
    """What is known of a slide of the folder: its files' sizes and times, and what became of it."""

    signature: str
    status: str
    reason: str = ""
    utc: str = ""


def watch(
    request: PredictionRequest,
    options: WatchConfig,
    progress: ProgressReporter | None = None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> JobResult:
    """Predicts every slide that arrives in ``request.slides``.

    A slide without a time limit of the request's own is given up after an hour.

    Args:
        request: As for ``predict``; ``slides`` is a folder, which may be empty.
        options: How to watch.
        progress: Told about the slides.
        clock: Seconds since the epoch.
        sleep: Waits so many seconds.

    Returns:
        Files of the last prediction, ``watch`` and ``quarantine``; a failure for every slide in quarantine.

    Raises:
        InputError: As ``predict``, or no folder, or a ``watch.json`` of something else.
        KeyboardInterrupt: Stopped; everything up to the last finished round is on disk.
    """
    if not request.slides.is_dir():
        raise InputError(f"{request.slides} is no folder; --watch looks at a folder that slides arrive in.")
    if request.extraction.timeout_per_slide is None:
        limits: ExecutionConfig = replace(request.extraction, timeout_per_slide=_TIMEOUT_S)
        request = replace(request, extraction=limits)
    predictor = Predictor(request)
    round_ = _Watch(predictor, options)
    last = clock()
    files: dict[str, Path] = {}
    while True:
        ready = round_.ready(clock())
        if ready:
            files |= round_.predict(ready, progress)
            last = clock()
        elif (
            options.until_idle_s is not None and not round_.waiting and clock() - last >= options.until_idle_s
        ):
            return round_.result(files)
        else:
            sleep(options.interval_s)


class _Watch:
    """The state of a watched folder."""

    def __init__(self, predictor: Predictor, options: WatchConfig) -> None:
        self._predictor, self._options = predictor, options
        self._root = predictor.request.slides
        self._file = predictor.out / "watch.json"
        self._digest = predictor.bundle.digest
        self._seen = self._load()
        self._pending: dict[str, tuple[str, float]] = {}
        self.waiting = False

    def ready(self, now: float) -> dict[str, FoundSlide]:
        """New or changed slides whose files rest, by id."""
        found = find_slides(self._root)
        ids = assign_slide_ids([slide.relative for slide in found])
        ready: dict[str, FoundSlide] = {}
        pending: dict[str, tuple[str, float]] = {}
        for slide_id, slide in zip(ids, found, strict=True):
            signature = _signature(slide)
            known = self._seen.get(slide.relative)
            if not signature or (known is not None and known.signature == signature):
                continue
            before = self._pending.get(slide.relative)
            since = before[1] if before is not None and before[0] == signature else now
            if now - since >= self._options.settle_s:
                ready[slide_id] = slide
            else:
                pending[slide.relative] = (signature, since)
        self._pending, self.waiting = pending, bool(pending)
        return ready

    def predict(self, ready: Mapping[str, FoundSlide], progress: ProgressReporter | None) -> dict[str, Path]:
        """One round; every slide of it ends as done or in quarantine."""
        signatures = {slide_id: _signature(slide) for slide_id, slide in ready.items()}
        _LOG.info("%d new slides: %s", len(ready), ", ".join(sorted(ready)[:5]))
        result = self._predictor.run(progress, frozenset(ready))
        reasons = self._predictor.problems
        utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for slide_id, slide in ready.items():
            reason = reasons.get(slide_id, "")
            status = "quarantined" if slide_id in reasons else "done"
            self._seen[slide.relative] = _Seen(signatures[slide_id], status, reason, utc)
        self._save(ready)
        return dict(result.files)

    def result(self, files: Mapping[str, Path]) -> JobResult:
        """The end of a watch."""
        bad = {path: seen for path, seen in sorted(self._seen.items()) if seen.status == "quarantined"}
        done = len(self._seen) - len(bad)
        return JobResult(
            {**files, "watch": self._file, "quarantine": self._predictor.out / "quarantine.csv"},
            tuple(f"{path}: {seen.reason}" for path, seen in bad.items()),
            (f"{done} slides predicted, {len(bad)} in quarantine; nothing new has come.",),
        )

    def _load(self) -> dict[str, _Seen]:
        if not self._file.is_file():
            return {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ValueError(f"schema {content['schema']!r}")
            if content["model"] != self._digest:
                _LOG.info("%s is of another model: all slides are predicted again", self._file.name)
                return {}
            return {str(path): _Seen(**values) for path, values in content["slides"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self._file} can't be read ({error}); remove it or choose another --out."
            ) from error

    def _save(self, ready: Mapping[str, FoundSlide]) -> None:
        content = {
            "schema": _SCHEMA,
            "model": self._digest,
            "slides": {path: asdict(seen) for path, seen in sorted(self._seen.items())},
        }
        write_json(self._file, content)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        paths = sorted(self._seen)
        ids = dict(zip(paths, assign_slide_ids(paths), strict=True))
        for path in paths:
            if self._seen[path].status == "quarantined":
                writer.writerow((ids[path], path, self._seen[path].reason, self._seen[path].utc))
        write_text(self._predictor.out / "quarantine.csv", text.getvalue())


def _signature(slide: FoundSlide) -> str:
    """Sizes and times of a slide's files; empty while one of them is away."""
    parts: list[str] = []
    files: Sequence[Path] = (slide.path, *slide.companions)
    for file in files:
        try:
            status = file.stat()
        except OSError:
            return "" if not slide.problem else f"problem: {slide.problem}"
        parts.append(f"{status.st_size}:{status.st_mtime_ns}")
    return " ".join(parts)
