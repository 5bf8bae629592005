"""The study's table: one line a run, appended whole; what is in it isn't run again."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError

__all__ = ["StudyTable"]


class StudyTable:
    """A CSV that grows by whole lines.

    A line is written by one ``write`` to a file opened for appending and is on disk before the next run is
    counted. A line without its end, as a power cut may leave, is cut off when the table is opened.

    Args:
        path: The file; made with its header when missing.
        key: Columns that tell one run from another.
        columns: All columns, those of the key first.

    Raises:
        InputError: The file has other columns.
    """

    def __init__(self, path: Path, key: Sequence[str], columns: Sequence[str]) -> None:
        self.path, self._key, self._columns = path, tuple(key), tuple(columns)
        if not path.exists() or path.stat().st_size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(",".join(self._columns) + "\n")
        self._drop_torn_line()
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != self._columns:
                raise InputError(
                    f"{path} has other columns than this version writes; choose another output folder."
                )
            self.done = {tuple(row[name] for name in self._key) for row in reader}

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a run; every column must be there."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row[name] for name in self._columns])
        self._write(text.getvalue())
        self.done.add(tuple(str(row[name]) for name in self._key))

    def _write(self, text: str) -> None:
        with self.path.open("ab", buffering=0) as handle:
            handle.write(text.encode())
            os.fsync(handle.fileno())

    def _drop_torn_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
