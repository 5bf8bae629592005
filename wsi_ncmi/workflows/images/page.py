"""The curves of an image-recognition job as one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["curves_page"]

_PANELS = (
    ("top1", "Top-1"),
    ("top5", "Top-5"),
    ("macro_f1", "Macro-F1"),
    ("ncmi", "NCMI = CMI / Γ"),
    ("cmi", "Concentration CMI, nats"),
    ("gamma", "Separation Γ, nats"),
)
# Okabe–Ito: told apart by colour-blind readers too; the dash follows the colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
_COLUMNS = (
    ("top1", "Top-1"), ("top5", "Top-5"), ("macro_f1", "Macro-F1"), ("ncmi", "NCMI"), ("cmi", "CMI"),
    ("gamma", "Γ"), ("top1_nearest", "Top-1, nearest centroid"),
)  # fmt: skip
_PER_CENT = ("top1", "top5", "macro_f1", "top1_nearest")
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ccc}
th:first-child,td:first-child{text-align:left}
caption{text-align:left;padding-bottom:.4rem;color:#444}
"""


def curves_page(
    title: str,
    curves: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]],
    summary: Mapping[str, Any],
) -> str:
    """Renders the page.

    Args:
        title: Heading.
        curves: Loss and seed → the rows of ``curves.csv``.
        summary: What ``summarise`` found.

    Returns:
        HTML with Plotly inside; it loads nothing.
    """
    from plotly.io import to_html

    first = next(iter(curves.values()))[0]
    part = f"the {first['part']} part"
    note = (
        f"Scores of the last epoch on {part}, mean ± standard deviation over seeds. NCMI, CMI and Γ "
        "(pairwise) are those of the class probabilities; at like accuracy a small NCMI is good; a network "
        "that can't decide has a small CMI too."
    )
    figure = to_html(_figure(curves), include_plotlyjs=True, full_html=False, config={"displaylogo": False})
    safe = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{safe}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{safe}</h1>{_table(summary, note)}"
        f"<h2>Curves on {part}</h2><p>Mean over seeds.</p>{figure}</body></html>\n"
    )


def _figure(curves: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> Any:
    from plotly.subplots import make_subplots

    names = list(dict.fromkeys(name for name, _ in curves))
    figure = make_subplots(rows=2, cols=3, subplot_titles=[label for _, label in _PANELS])
    for i, name in enumerate(names):
        runs = [rows for (loss, _), rows in curves.items() if loss == name]
        style = {"color": _COLOURS[i % len(_COLOURS)], "dash": _DASHES[i % len(_DASHES)], "width": 2}
        for panel, (score, _) in enumerate(_PANELS):
            epochs, values = _mean(runs, score)
            figure.add_scatter(
                x=epochs, y=values, mode="lines", name=html.escape(name), legendgroup=name, line=style,
                showlegend=panel == 0, row=panel // 3 + 1, col=panel % 3 + 1,
            )  # fmt: skip
    figure.update_xaxes(title_text="Epoch", rangemode="tozero")
    figure.update_layout(
        height=760, template="simple_white", legend={"orientation": "h", "y": -0.12}, margin={"t": 80}
    )
    return figure


def _mean(runs: Sequence[Sequence[Mapping[str, Any]]], score: str) -> tuple[list[int], list[float]]:
    values: dict[int, list[float]] = {}
    for rows in runs:
        for row in rows:
            if row[score] == row[score]:
                values.setdefault(row["epoch"], []).append(row[score])
    whole = {epoch: found for epoch, found in values.items() if len(found) == len(runs)}
    return sorted(whole), [float(np.mean(whole[epoch])) for epoch in sorted(whole)]


def _table(summary: Mapping[str, Any], note: str) -> str:
    head = "".join(f"<th>{label}</th>" for _, label in _COLUMNS)
    body = []
    for name, scores in summary["losses"].items():
        cells = "".join(f"<td>{_cell(scores.get(key), key)}</td>" for key, _ in _COLUMNS)
        body.append(f"<tr><td>{html.escape(name)}</td><td>{scores['seeds']}</td>{cells}</tr>")
    return (
        f"<table><caption>{note}</caption><tr><th>Loss</th><th>Seeds</th>{head}</tr>{''.join(body)}</table>"
    )


def _cell(score: Mapping[str, float] | None, key: str) -> str:
    if score is None:
        return "–"
    factor, digits, unit = (100, 2, " %") if key in _PER_CENT else (1, 4, "")
    spread = "" if score["sd"] is None else f" ± {factor * score['sd']:.{digits}f}"
    return f"{factor * score['mean']:.{digits}f}{spread}{unit}"
