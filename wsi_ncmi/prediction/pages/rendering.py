"""What both kinds of page share: templates with autoescape, and pictures inside the page."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["data_uri", "render"]

_MIME = {".jpg": "image/jpeg", ".png": "image/png"}


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("wsi_ncmi.prediction"),
        autoescape=True,  # slide ids and class names come from elsewhere
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """Renders a template of this room."""
    return _environment().get_template(template).render(**values)


def data_uri(path: Path) -> str:
    """A picture as the page's own data; empty where there is none."""
    if not path.is_file():
        return ""
    return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
