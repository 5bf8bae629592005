"""Log lines for people or, on request, for machines; secrets are in neither."""

import datetime
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

from wsi_ncmi.core.values import printable, printable_lines

FORMAT_VARIABLE = "WSI_NCMI_LOG_FORMAT"
"""``json`` gives one JSON object a line; anything else gives text. Worker processes inherit it."""

_TEXT = "%(asctime)s %(levelname)s %(message)s"
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "RAY_AUTH_TOKEN")
_SHAPES = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}")
_MASK = "***"
_SHORTEST = 8


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Masks tokens: those that the environment holds, and whatever looks like one of the hub's.

    Args:
        text: A message of ours or of a library.
        environment: Where tokens may be set.
    """
    for name in _SECRETS:
        value = environment.get(name, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, _MASK)
    return _SHAPES.sub(_MASK, text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable_lines(super().formatException(ei))


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message`` and more.

    What a caller passes as ``extra={"fields": {...}}`` becomes keys of the object, an exception ``error``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))


def is_json(environment: Mapping[str, str] = os.environ) -> bool:
    """Log lines are to be JSON."""
    return environment.get(FORMAT_VARIABLE, "").strip().lower() == "json"


def configure_logging(level: int, form: Literal["text", "json"] | None = None) -> None:
    """Sends log lines to standard error.

    Args:
        level: Of this program; other libraries are heard from warnings on.
        form: None takes what the environment says.
    """
    as_json = is_json() if form is None else form == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else _Text(_TEXT))
    logging.basicConfig(handlers=[handler])
    # Third-party chatter is not the user's business.
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("wsi_ncmi").setLevel(level)
