"""Concentration against separation, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.reporting.figures.figure import Figure, axis, line
from wsi_ncmi.reporting.figures.learning import connected_components, has_values, mean_over_runs
from wsi_ncmi.reporting.wording import number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["information_figure"]


def information_figure(curves: pd.DataFrame | None, names: Sequence[str]) -> Figure | None:
    """The way of CMI and Γ over the epochs on the validation part.

    Args:
        curves: With ``val_cmi`` and ``val_gamma``; None or without them → no figure.
        names: The losses.

    Returns:
        The figure, or None.
    """
    if not has_values(curves, "val_cmi", "val_gamma"):
        return None
    assert curves is not None
    traces, sentences = [], []
    for i, (name, runs) in enumerate(connected_components(curves, names).items()):
        epochs, concentration = mean_over_runs(runs, "val_cmi")
        other, separation = mean_over_runs(runs, "val_gamma")
        both = sorted(set(epochs) & set(other))
        if not both:
            continue
        x = separation[np.isin(other, both)]
        y = concentration[np.isin(epochs, both)]
        path = line(name or "mean over runs", x, y, i, mode="lines+markers", line={"width": 1.8})
        # The last epoch is the large dot: the direction of the path.
        path["marker"] = {"size": [4.0] * (len(both) - 1) + [13.0]}
        path["text"] = [f"epoch {epoch:.0f}" for epoch in both]
        path["hovertemplate"] = "%{text}<br>Γ %{x:.3f}<br>CMI %{y:.3f}<extra></extra>"
        traces.append(path)
        ratio = y[-1] / x[-1] if x[-1] > 0 else float("nan")
        sentences.append(
            f"{name + ': ' if name else ''}from CMI {number(y[0])}, Γ {number(x[0])} to CMI {number(y[-1])}, "
            f"Γ {number(x[-1])} (NCMI {number(ratio)})"
        )
    if not traces:
        return None
    return Figure(
        "information",
        "Concentration and separation",
        "Concentration (CMI, spread of the outputs within a class; low is good) against separation (Γ, "
        "distance to "
        "other classes; high is good) on the validation part, one dot an epoch, mean over folds and seeds; "
        "the large "
        "dot is the last epoch. NCMI is their ratio: good models move to the lower right.",
        f"Path of concentration and separation over the epochs: {'; '.join(sentences)}.",
        traces,
        {
            "xaxis": axis("Separation Γ (nats)"),
            "yaxis": axis("Concentration CMI (nats)"),
            "legend": {"below": True},
        },
    )
