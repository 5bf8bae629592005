"""Learning curves, and concentration against separation epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.reporting.figures.figure import Figure, axis, line
from wsi_ncmi.reporting.formatting import count, number

if TYPE_CHECKING:
    import pandas as pd

_MAX_THIN_LINES = 30


def has_values(curves: pd.DataFrame | None, *columns: str) -> bool:
    """Whether the curves have all columns with at least one finite value in each."""
    if curves is None or curves.empty or "epoch" not in curves.columns:
        return False
    return all(
        column in curves.columns and bool(np.isfinite(curves[column].to_numpy(dtype=np.float64)).any())
        for column in columns
    )


def runs_by_loss(curves: pd.DataFrame, names: Sequence[str]) -> dict[str, list[pd.DataFrame]]:
    """Loss → the curves of its runs (fold × seed), each sorted by epoch."""
    keys = [column for column in ("fold", "seed") if column in curves.columns]
    found: dict[str, list[pd.DataFrame]] = {}
    for name in names:
        told_apart = "loss" in curves.columns and len(names) > 1
        mine = curves[curves["loss"].astype(str) == name] if told_apart else curves
        parts = [part for _, part in mine.groupby(keys, sort=True)] if keys else [mine]
        runs = [part.sort_values("epoch") for part in parts if not part.empty]
        if runs:
            found[name] = runs
    return found


def mean_over_runs(
    runs: Sequence[pd.DataFrame], column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Epochs and mean values, as far as at least half of the runs go; beyond, it would be a mean of few."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for epoch, value in zip(run["epoch"].to_numpy(), run[column].to_numpy(dtype=np.float64), strict=True):
            if np.isfinite(value):
                values.setdefault(float(epoch), []).append(float(value))
    epochs = sorted(epoch for epoch, found in values.items() if 2 * len(found) >= len(runs))
    return np.asarray(epochs), np.asarray([np.mean(values[epoch]) for epoch in epochs])


def learning_figures(curves: pd.DataFrame | None, names: Sequence[str]) -> list[Figure]:
    """The learning curves that the table has columns for.

    Args:
        curves: ``fold, seed, epoch, train_loss, val_loss, val_macro_f1``, perhaps ``loss``.
        names: The losses, in the order of the report.

    Returns:
        Macro-F1, then the loss values; each only where it was recorded.
    """
    figures = []
    if has_values(curves, "val_macro_f1"):
        assert curves is not None
        figures.append(_macro_f1(runs_by_loss(curves, names)))
    if has_values(curves, "train_loss"):
        assert curves is not None
        figures.append(_losses(runs_by_loss(curves, names), has_values(curves, "val_loss")))
    return figures


def _macro_f1(by_loss: dict[str, list[pd.DataFrame]]) -> Figure:
    traces, sentences = _lines(by_loss, "val_macro_f1", ""), []
    for name, runs in by_loss.items():
        best, at = _best(runs)
        if not best:
            continue
        sentences.append(
            f"{name + ': ' if name else ''}best value {number(float(np.mean(best)))} on average over "
            f"{count(len(best), 'run')}, reached at epoch {np.median(at):.0f} (median)."
        )
    return Figure(
        "learning-f1",
        "Validation macro-F1",
        "Macro-F1 on the validation part, which chooses the epoch to keep, never on the test part. Thick: "
        f"mean over folds and seeds; thin: single runs. {' '.join(sentences)}",
        f"Learning curves of validation macro-F1. {' '.join(sentences)}",
        traces,
        {
            "xaxis": axis("Epoch", rangemode="tozero"),
            "yaxis": axis("Macro-F1 (validation)"),
            "legend": {"below": True},
        },
    )


def _best(runs: Sequence[pd.DataFrame]) -> tuple[list[float], list[int]]:
    """Best validation macro-F1 of each run that has one, and its epoch."""
    best, at = [], []
    for run in runs:
        values = run["val_macro_f1"].to_numpy(dtype=np.float64)
        if np.isfinite(values).any():
            best.append(float(np.nanmax(values)))
            at.append(int(run["epoch"].iloc[int(np.nanargmax(values))]))
    return best, at


def _losses(by_loss: dict[str, list[pd.DataFrame]], with_validation: bool) -> Figure:
    columns = ["train_loss", "val_loss"] if with_validation else ["train_loss"]
    traces, sentences = [], []
    for i, (name, runs) in enumerate(by_loss.items()):
        for j, column in enumerate(columns):
            part = "training" if column == "train_loss" else "validation"
            epochs, values = mean_over_runs(runs, column)
            # One loss: a colour a part. Several: a colour a loss, and dashes for validation.
            colour = j if len(by_loss) == 1 else i
            label = f"{name} {part}".strip()
            traces += _thin(runs, column, colour) if len(by_loss) == 1 else []
            traces.append(line(label, epochs, values, colour, line={"dash": "dash" if j else "solid"}))
            if len(values):
                sentences.append(f"{label}: {number(values[0])} → {number(values[-1])}")
    return Figure(
        "learning-loss",
        "Loss",
        "Mean over folds and seeds. Values of different losses have different scales and can't be compared "
        "with each other; a validation loss that rises while the training loss falls is overfitting.",
        f"Learning curves of the loss, first to last epoch. {'; '.join(sentences)}.",
        traces,
        {"xaxis": axis("Epoch", rangemode="tozero"), "yaxis": axis("Loss"), "legend": {"below": True}},
    )


def _lines(by_loss: dict[str, list[pd.DataFrame]], column: str, part: str) -> list[dict[str, Any]]:
    traces = []
    for i, (name, runs) in enumerate(by_loss.items()):
        if len(by_loss) <= 2:
            traces += _thin(runs, column, i)
        epochs, values = mean_over_runs(runs, column)
        traces.append(
            line(f"{name} {part}".strip() or "mean over runs", epochs, values, i, line={"width": 3})
        )
    return traces


def _thin(runs: Sequence[pd.DataFrame], column: str, colour: int) -> list[dict[str, Any]]:
    if not 1 < len(runs) <= _MAX_THIN_LINES:
        return []
    return [
        line("", run["epoch"].to_numpy(), run[column].to_numpy(dtype=np.float64), colour,
             line={"width": 0.8, "dash": "solid"}, opacity=0.35, hoverinfo="skip", showlegend=False)
        for run in runs
    ]  # fmt: skip


def information_figure(
    curves: pd.DataFrame | None, names: Sequence[str], tested: Mapping[str, float]
) -> Figure | None:
    """The way of CMI and Γ over the epochs on the validation part.

    Args:
        curves: With ``val_cmi`` and ``val_gamma``; None or without them → no figure. Nor is there one where
            every CMI is 0: with a slide a class each class mean is its slide.
        names: The losses.
        tested: Loss → NCMI of the test predictions, as the table has it.

    Returns:
        The figure, or None.
    """
    if not has_values(curves, "val_cmi", "val_gamma"):
        return None
    assert curves is not None
    if not curves["val_cmi"].fillna(0.0).any():
        return None
    traces, sentences, last = [], [], {}
    for i, (name, runs) in enumerate(runs_by_loss(curves, names).items()):
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
        traces.append(path)
        ratio = last[name] = y[-1] / x[-1] if x[-1] > 0 else float("nan")
        sentences.append(
            f"{name + ': ' if name else ''}from CMI {number(y[0])}, Γ {number(x[0])} to CMI {number(y[-1])}, "
            f"Γ {number(x[-1])} (NCMI {number(ratio)})"
        )
    if not traces:
        return None
    turned = [
        f"{a} and {b}"
        for a, b in combinations([name for name in last if name in tested], 2)
        if (last[a] - last[b]) * (tested[a] - tested[b]) < 0
    ]
    order = (
        f" It orders {'; '.join(turned)} the other way round than the table does: few validation slides, or "
        "epochs that were not kept, can do that; the table counts."
        if turned
        else ""
    )
    return Figure(
        "information",
        "Concentration and separation",
        "Concentration (CMI, spread of the outputs within a class; low is good) against separation (Γ, "
        "distance to "
        "other classes; high is good) on the validation part, one dot an epoch, mean over folds and seeds; "
        "the large "
        "dot is the last epoch. NCMI is their ratio: good models move to the lower right. The table of "
        f"metrics has CMI, Γ and NCMI of the test predictions at the epoch that was kept.{order}",
        f"Path of concentration and separation over the epochs: {'; '.join(sentences)}.",
        traces,
        {
            "xaxis": axis("Separation Γ (nats)"),
            "yaxis": axis("Concentration CMI (nats)"),
            "legend": {"below": True},
        },
    )
