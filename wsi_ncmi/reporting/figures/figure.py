"""A figure: what the page draws, and the words for those who read or hear instead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        key: Identifier in the page.
        title: Heading.
        caption: What is drawn and how to read it.
        alt: What the figure shows, in numbers, for a screen reader.
        traces: Lines, bands and bars by the names of Plotly's traces, without colours; ``meta.colour`` is an
            index into the palette.
        layout: Axes and whether there is a legend, by the names of Plotly's layout.
        columns: Header of the figure's data as a table; empty = no table.
        rows: The data.
    """

    key: str
    title: str
    caption: str
    alt: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)


def _numbers(values: Sequence[float] | np.ndarray[Any, Any], digits: int = 4) -> list[float | None]:
    # None leaves a gap; more digits than pixels would only make the file larger.
    return [round(float(value), digits) if math.isfinite(value) else None for value in values]


def line(
    name: str,
    x: Sequence[float] | np.ndarray[Any, Any],
    y: Sequence[float] | np.ndarray[Any, Any],
    colour: int,
    **more: Any,
) -> dict[str, Any]:
    """A line; its dash follows its colour, so that neither has to be told apart alone."""
    meta = {"colour": colour, **more.pop("meta", {})}
    style = {"width": 2.2, "dash": _DASHES[colour % len(_DASHES)], **more.pop("line", {})}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": _numbers(x),
        "y": _numbers(y),
        "line": style,
        "meta": meta,
        **more,
    }


def band(
    x: Sequence[float] | np.ndarray[Any, Any],
    low: np.ndarray[Any, Any],
    high: np.ndarray[Any, Any],
    colour: int,
    **more: Any,
) -> dict[str, Any]:
    """A closed area between two curves."""
    there = np.isfinite(low) & np.isfinite(high)
    x = np.asarray(x)[there]
    return {
        "type": "scatter",
        "mode": "none",
        "x": _numbers(np.concatenate([x, x[::-1]])),
        "y": _numbers(np.concatenate([high[there], low[there][::-1]])),
        "fill": "toself",
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": {"colour": colour, "band": True},
        **more,
    }


def axis(title: str, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    """An axis with its title, and with fixed limits where given."""
    limits = {} if low is None or high is None else {"range": [low, high], "autorange": False}
    return {"title": {"text": title, "standoff": 8}, **limits, **more}
