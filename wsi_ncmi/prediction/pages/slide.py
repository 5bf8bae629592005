"""The page of one slide: answer, why there may be none, heatmaps, the tiles that count most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.core.files import write_text
from wsi_ncmi.prediction.answer import SlideAnswer
from wsi_ncmi.prediction.bundle.model import ModelBundle
from wsi_ncmi.prediction.pages.rendering import data_uri, render

__all__ = ["Picture", "write_slide_page"]


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        title: What it shows.
        path: ``.png`` or ``.jpg``; left out where it isn't there.
    """

    title: str
    path: Path


def write_slide_page(
    path: Path, answer: SlideAnswer, bundle: ModelBundle, pictures: Sequence[Picture], *, back: str
) -> None:
    """Writes the page, atomically; it holds its pictures and loads nothing.

    Args:
        path: Where to.
        answer: What is said of the slide.
        bundle: The model.
        pictures: What to show, in order.
        back: Relative address of the page of all slides.
    """
    shown = [(picture.title, uri) for picture in pictures if (uri := data_uri(picture.path))]
    html = render(
        "slide.html.j2",
        answer=answer,
        chances=[(name, answer.probabilities[name], answer.spread[name]) for name in answer.probabilities],
        bundle=bundle,
        pictures=shown,
        back=back,
    )
    write_text(path, html)
