"""Fonts for the names in pictures, whatever their script.

Pages and SVG figures leave this to the browser. A picture is drawn with DejaVu Sans, which matplotlib ships,
or where that lacks characters (Chinese, Japanese, Korean, Indic scripts) with a font of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_LOG = logging.getLogger(__name__)


def font_file(text: str) -> str:
    """File of the font that has the most characters of a text; a warning names those that none has."""
    return _font(frozenset(text))[0]


def drawable(text: str) -> str:
    """The text; characters that its font lacks become a backslash, ``u`` and their number."""
    missing = frozenset[str]() if text.isascii() else _font(frozenset(text))[1]
    return "".join(f"\\u{ord(c):04x}" if c in missing else c for c in text)


def font_families(texts: Iterable[str]) -> list[str]:
    """Names of the fonts that draw some texts, for matplotlib, the first one first."""
    from matplotlib.ft2font import FT2Font

    files = dict.fromkeys((font_file(""), *map(font_file, texts)))
    return [FT2Font(file).family_name for file in files]


@cache
def _font(characters: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The font for some characters, and those that it lacks."""
    import matplotlib as mpl

    shipped = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    wanted = frozenset(c for c in characters if not c.isspace())
    if not (missing := _missing(shipped, wanted)):
        return shipped, missing
    from matplotlib.font_manager import fontManager

    files = sorted(
        # The last resort, which matplotlib ships too, draws every character as the box of its script.
        {e.fname for e in fontManager.ttflist if e.style == "normal" and "last resort" not in e.name.lower()},
        key=lambda file: ("Regular" not in file, "Sans" not in file, file),
    )
    best = min((shipped, *files), key=lambda file: len(_missing(file, wanted)))
    missing = _missing(best, wanted)
    if missing:
        _LOG.warning(
            "No font of this machine can draw %s: pictures (PNG, JPEG) have \\u and a number instead. "
            "Install a font such as Noto Sans CJK; pages and SVG figures are not affected.",
            "".join(sorted(missing)),
        )
    return best, missing


def _missing(file: str, characters: frozenset[str]) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        known = FT2Font(file).get_charmap()
    except (OSError, RuntimeError):  # a font of the machine that can't be read
        return characters
    return frozenset(c for c in characters if ord(c) not in known)
