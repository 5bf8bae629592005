"""How a command line names labels: ``FILE``, ``ADAPTER:FILE`` or ``ADAPTER:FILE?key=value&key=value``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ncmi.core.errors import InputError

__all__ = ["COLUMN_SETTINGS", "LabelsSpec", "parse_spec"]

COLUMN_SETTINGS = ("slide_id", "case_id", "label", "centre")
"""Settings that name a column of the table in place of the usual one."""

_ADAPTER = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)", re.DOTALL)


@dataclass(frozen=True)
class LabelsSpec:
    """Which file, read how.

    Attributes:
        adapter: Name of the adapter, ``csv`` where none was named.
        path: The table.
        settings: Key → text, for example ``label`` → ``subtype``; files in it are absolute or relative to the
            working directory, or else to the table's folder.
    """

    adapter: str
    path: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def file(self, key: str) -> Path | None:
        """The file that a setting names, or None where it wasn't given.

        Raises:
            InputError: There is no such file.
        """
        if key not in self.settings:
            return None
        given = Path(self.settings[key])
        for candidate in (given, self.path.parent / given):
            if candidate.is_file():
                return candidate
        raise InputError(f"There is no file {given} ({key}= of the labels {self.path}); check the path.")


def parse_spec(path_or_spec: str | Path) -> LabelsSpec:
    """Takes a labels argument apart; whether adapter and settings exist is not judged here.

    Raises:
        InputError: A setting without ``=``, or one given twice.
    """
    text = str(path_or_spec)
    if Path(text).exists():
        return LabelsSpec("csv", Path(text))
    match = _ADAPTER.fullmatch(text)
    adapter, rest = match.groups() if match else ("csv", text)
    file, _, query = rest.partition("?")
    settings: dict[str, str] = {}
    for item in query.split("&") if query else ():
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise InputError(f"The setting {item!r} in {text!r} is not key=value, such as label=subtype.")
        if key in settings:
            raise InputError(f"The setting {key!r} is in {text!r} twice; keep one.")
        settings[key] = value
    return LabelsSpec(adapter, Path(file), settings)
