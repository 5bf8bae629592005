"""Names in scripts that the shipped font lacks: a font of the machine, or a warning and numbers."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from wsi_ncmi.reporting import fonts
from wsi_ncmi.reporting.figures.static import draw_confusion

CLASSES = ("𒀀腺癌", "𒀀鱗癌", "größe Γ")  # the first letter so that no real font has all of them


@pytest.fixture(autouse=True)
def no_memory() -> Iterator[None]:
    fonts._font.cache_clear()
    yield
    fonts._font.cache_clear()


@pytest.fixture
def machine_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A font of this machine that has every letter of the classes: each a black square."""
    pen = TTGlyphPen(None)
    for place in ((0, 0), (0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(place) if place != (0, 0) else pen.moveTo(place)
    pen.closePath()
    square = pen.glyph()
    letters = {ord(letter): f"u{ord(letter):x}" for letter in sorted(set("".join(CLASSES)))}
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", *letters.values()]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(letters)
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "Squares-Regular.ttf"
    builder.save(path)
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(path)
    return path


def pixels(png: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_the_shipped_font_draws_what_it_can() -> None:
    assert fonts.font_file("größe Γ опухоль ≥ 2").endswith("DejaVuSans.ttf")
    assert fonts.drawable("größe Γ опухоль ≥ 2") == "größe Γ опухоль ≥ 2"
    assert fonts.font_families(["a", "Γ"]) == ["DejaVu Sans"]


def test_a_font_of_the_machine_draws_the_rest(machine_font: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert fonts.font_file(CLASSES[0]) == str(machine_font)
    assert fonts.drawable(CLASSES[0]) == CLASSES[0]
    assert fonts.font_families(CLASSES) == ["DejaVu Sans", "Squares"]
    drawn = draw_confusion(CLASSES, np.eye(3))
    assert not caplog.records
    # Its squares are black; without it there would be an outlined box.
    assert (pixels(drawn["png"])[:, :300] < 64).sum() > 1000
    assert all(name in drawn["svg"].decode() for name in CLASSES)


def test_without_one_a_warning_says_so_and_names_stay_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        shown = [fonts.drawable(name) for name in CLASSES]
        again = [fonts.drawable(name) for name in CLASSES]
    assert shown == again
    assert len(set(shown)) == 3
    assert "\\u12000" in shown[0] or "腺" not in shown[0]
    assert shown[2] == CLASSES[2]
    assert len([record for record in caplog.records if "No font" in record.message]) == 2  # one for each name
    assert "Noto Sans CJK" in caplog.text
    drawn = draw_confusion(CLASSES, np.eye(3))
    assert all(name in drawn["svg"].decode() for name in CLASSES)


@pytest.mark.filterwarnings("error")
def test_a_class_is_no_formula() -> None:
    drawn = draw_confusion(("$\\frac", "a$b$"), np.eye(2))
    assert "$\\frac" in drawn["svg"].decode()
