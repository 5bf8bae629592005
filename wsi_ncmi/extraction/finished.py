"""Slides that jobs have finished in an output folder, which the next one need not read again."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_ncmi.core.files import parse_json
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.ledger import ALREADY_EXTRACTED, LedgerRow, failed_row
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.schema import NONE, Identity
from wsi_ncmi.slides.identity import stamp_of
from wsi_ncmi.tissue import ARTIFACT_KINDS

FINISHED = ".finished.jsonl"
"""A line a feature file, the last one counts; without the file a resumed job only takes longer."""

_KEPT = {
    **dict.fromkeys(("tiles", "failed_reads", "artifact_tiles", "artifacts_found", *ARTIFACT_KINDS), int),
    "reader": str,
}


class FinishedSlides:
    """Feature files that were made or checked by earlier jobs with the settings of this one.

    A file counts as such as long as nobody has written to it since: its size and times are those of then.

    Args:
        tasks: The job; all of one output folder.
        encoder: Its encoder.
    """

    def __init__(self, tasks: Sequence[SlideTask], encoder: EncoderInfo) -> None:
        self._encoder = encoder
        self._tasks = {(task.record.slide_id, task.features_set): task for task in tasks}
        self._path = tasks[0].out / FINISHED if tasks else None
        self._identities: dict[str, Identity] = {}
        self._lines: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_bytes().splitlines() if self._path is not None else ():
                with contextlib.suppress(ValueError, TypeError, KeyError):  # torn by a kill
                    found = parse_json(line)
                    self._lines[found["file"]] = found

    def row(self, task: SlideTask) -> LedgerRow | None:
        """The row of a slide whose features are there; None where that has to be looked at."""
        if task.record.problem:
            return None
        path = task.feature_path(self._encoder.name)
        found = self._lines.get(self._name(task, path))
        try:
            if found is None or found["state"] != stamp_of([path]) or found["task"] != self._digest(task):
                return None
            kept = {name: kind(found[name]) for name, kind in _KEPT.items()}
        except (OSError, KeyError, ValueError, TypeError):
            return None
        return replace(failed_row(task, ALREADY_EXTRACTED), status="skipped", **kept)

    def add(self, row: LedgerRow) -> None:
        """Notes the row of a slide whose features are there now."""
        if self._path is None or not (row.status == "done" or row.reason == ALREADY_EXTRACTED):
            return
        task = self._tasks[row.slide_id, row.features_set]
        path = task.feature_path(self._encoder.name)
        with contextlib.suppress(OSError):  # it is asked for anew then
            line = {
                "file": self._name(task, path), "state": stamp_of([path]), "task": self._digest(task),
                **{name: getattr(row, name) for name in _KEPT},
            }  # fmt: skip
            if self._lines.get(line["file"]) != line:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    os.write(descriptor, f"\n{json.dumps(line)}\n".encode())
                finally:
                    os.close(descriptor)

    def _name(self, task: SlideTask, path: Path) -> str:
        return path.relative_to(task.out).as_posix()

    def _digest(self, task: SlideTask) -> str:
        """Hash of all that decides what the file holds and what its row says."""
        if task.features_set not in self._identities:
            self._identities[task.features_set] = task.identity(self._encoder)
        identity = replace(
            self._identities[task.features_set],
            slide_fingerprint=task.record.fingerprint,
            mpp_level0_x=task.mpp.x,
            mpp_level0_y=task.mpp.y,
            annotations=NONE if task.annotations is None else task.annotations.sha256,
        )
        return hashlib.blake2b(repr((identity, task.config.artifacts)).encode(), digest_size=16).hexdigest()
