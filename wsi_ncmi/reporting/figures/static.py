"""The figures as PNG and SVG for papers: what the page's browser draws, drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.reporting.figures.figure import Figure
from wsi_ncmi.reporting.fonts import drawable, font_families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import NDArray

FORMATS = ("png", "svg")
# Those of the page's light theme (style.css): told apart by lightness as well as hue.
_PALETTE = (
    "#0067a5", "#c94f00", "#00805e", "#a8437f", "#806500", "#5b4bb5", "#2f7f95", "#555b66",
)  # fmt: skip
_FAINT = "#97a3af"
_DASHES = {
    "solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 2, 3)),
}  # fmt: skip
_INCHES = (4.6, 3.7)
_DPI = 160
_SMALL = 8
# A sixth more bytes than by zlib's usual effort, in a quarter of its time.
_WRITTEN: dict[str, dict[str, Any]] = {
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
}
# Text stays text (searchable, editable), and neither date nor program is written: same run, same bytes.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "wsi-ncmi", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e8ed", "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": _SMALL,
    "text.parse_math": False,  # a class may be named $x
}  # fmt: skip


def draw_figure(figure: Figure) -> dict[str, bytes]:
    """Draws one figure.

    Args:
        figure: As the page has it.

    Returns:
        Format (``FORMATS``) → content of the file; the same input gives the same bytes.
    """
    names = [str(trace.get("name", "")) for trace in figure.traces]
    return _drawn(names, lambda names: _figure(figure, names))


def _figure(figure: Figure, names: Sequence[str]) -> Canvas:
    from matplotlib.figure import Figure as NewCanvas  # not pyplot, whose state all threads share

    canvas = NewCanvas(figsize=_INCHES)
    places = _places(canvas, figure.layout)
    for trace, name in zip(figure.traces, names, strict=True):
        _draw_trace(places[str(trace.get("yaxis", "y"))], trace, name)
    _finish(places, figure.layout)
    return canvas


def draw_confusion(classes: Sequence[str], counts: NDArray[np.float64]) -> dict[str, bytes]:
    """Draws a confusion matrix: counts, shaded by their share of the true class.

    Args:
        classes: Names in order.
        counts: (C, C) ``[true, predicted]``.

    Returns:
        Format → content of the file.
    """
    return _drawn(classes, lambda names: _confusion(names, counts))


def _confusion(classes: Sequence[str], counts: NDArray[np.float64]) -> Canvas:
    from matplotlib.figure import Figure as NewCanvas

    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    n, whole = len(classes), bool(np.allclose(counts, np.round(counts)))
    side = max(3.4, 0.42 * n + 1.6)
    canvas = NewCanvas(figsize=(side + 0.4, side))
    ax = canvas.add_subplot()
    ax.grid(visible=False)
    image = ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    canvas.colorbar(image, ax=ax, label="Share of the true class", shrink=0.8)
    ax.set_xticks(range(n), classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n), classes)
    ax.set_xlabel("Predicted class")
    ax.set_ylabel("True class")
    # Of many classes those that were confused: 40,000 texts of 200 classes nobody could read.
    shown = np.ndindex(n, n) if n <= 12 else zip(*np.nonzero(counts), strict=True)
    for i, j in shown:
        text = f"{counts[i, j]:,.0f}" if whole else f"{counts[i, j]:,.1f}"
        colour = "white" if shares[i, j] > 0.55 else "black"
        ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=_SMALL if n <= 12 else 6)
    return canvas


def _drawn(names: Sequence[str], draw: Callable[[Sequence[str]], Canvas]) -> dict[str, bytes]:
    """Every format of a figure with names in it; SVG keeps those that no font here can draw."""
    import matplotlib as mpl

    plain = [drawable(name) for name in names]
    with mpl.rc_context({**_STYLE, "font.family": font_families(names)}):
        if plain == list(names):
            return _written(draw(names), FORMATS)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            return _written(draw(names), ("svg",)) | _written(draw(plain), ("png",))


def _places(canvas: Canvas, layout: dict[str, Any]) -> dict[str, Axes]:
    """The page's y axes → places to draw in; a second one lies below the first and shares its x axis."""
    if "yaxis2" not in layout:
        return {"y": canvas.add_subplot()}
    top, bottom = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    return {"y": top, "y2": bottom}


def _draw_trace(ax: Axes, trace: dict[str, Any], name: str) -> None:
    meta = trace.get("meta", {})
    colour = _FAINT if meta.get("faint") else _PALETTE[meta.get("colour", 0) % len(_PALETTE)]
    x, y = (np.array([np.nan if v is None else v for v in trace[axis]], dtype=np.float64) for axis in "xy")
    if trace["type"] == "bar":
        ax.bar(x, y, width=trace.get("width", 0.8), color=colour, alpha=0.45)
    elif meta.get("band"):
        ax.fill(x, y, color=colour, alpha=0.16, linewidth=0)
    else:
        style = trace.get("line", {})
        ax.plot(
            x, y, color=colour, linewidth=0.75 * style.get("width", 2.0),
            linestyle=_DASHES[style.get("dash", "solid")], alpha=trace.get("opacity", 1.0),
            label=name if name and trace.get("showlegend", True) else None,
        )  # fmt: skip
        if "markers" in trace.get("mode", ""):
            size = trace.get("marker", {}).get("size", 6)
            ax.scatter(x, y, s=(0.75 * np.asarray(size, dtype=np.float64)) ** 2, color=colour, zorder=3)


def _finish(places: dict[str, Axes], layout: dict[str, Any]) -> None:
    lowest = list(places.values())[-1]
    lowest.set_xlabel(layout["xaxis"]["title"]["text"])
    for name, ax in places.items():
        described = layout[name.replace("y", "yaxis", 1)]
        ax.set_ylabel(described["title"]["text"])
        for ticks, of in ((ax.yaxis, described), (ax.xaxis, layout["xaxis"])):
            if of.get("tickformat") == ".0%":
                ticks.set_major_formatter(_percent)
        if "range" in described:
            ax.set_ylim(*described["range"])
        if "range" in layout["xaxis"]:
            ax.set_xlim(*layout["xaxis"]["range"])
        if layout["xaxis"].get("rangemode") == "tozero":
            ax.set_xlim(left=0)
        if layout.get("legend", {}).get("below") and ax.get_legend_handles_labels()[1]:
            ax.legend()


def _percent(value: float, _: float) -> str:
    return f"{100 * value:.0f} %"


def _written(canvas: Canvas, formats: Sequence[str]) -> dict[str, bytes]:
    from matplotlib.layout_engine import TightLayoutEngine

    found = {}
    TightLayoutEngine().execute(canvas)  # once; a figure's own engine would go for each format
    for kind in formats:
        stream = io.BytesIO()
        canvas.savefig(stream, format=kind, dpi=_DPI, **_WRITTEN[kind])
        found[kind] = stream.getvalue()
    return found
