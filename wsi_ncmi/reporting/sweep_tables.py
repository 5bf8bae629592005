"""Tables of a sweep: a row a run, and a row a cell with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_ncmi.core.files import job_folder, parse_json, write_json, write_text
from wsi_ncmi.metrics import fold_metrics
from wsi_ncmi.reporting.exports import write_table
from wsi_ncmi.training import MODEL_JSON, SweepConfig, TrainConfig
from wsi_ncmi.training.runs import PREDICTIONS, read_run_predictions

SWEEP_SCHEMA = "wsi-ncmi/grid/1"
_KEY = ["encoder", "model", "loss"]


def report_sweep(config: SweepConfig) -> dict[str, Path]:
    """Writes ``grid.csv`` (a row a run), ``grid.json`` (a row a cell, with intervals) and ``grid.md``.

    Args:
        config: A sweep whose cells have been trained and reported.

    Returns:
        ``table``, ``summary`` and ``overview``.
    """
    rows: list[pd.DataFrame] = []
    summary: list[dict[str, Any]] = []
    for (encoder, model), cell in config.cells().items():
        of_cell = _runs(cell)
        of_cell.insert(0, "encoder", encoder)
        of_cell.insert(1, "model", model)
        rows.append(of_cell)
        metrics = parse_json((cell.out / "metrics.json").read_text(encoding="utf-8"))
        for loss in cell.named_losses:
            found = metrics["losses"].get(loss) if "losses" in metrics else metrics
            if found is not None:
                summary.append({"encoder": encoder, "model": model, "loss": loss, **_figures(found)})
    names = {"table": "grid.csv", "summary": "grid.json", "overview": "grid.md"}
    files = {name: job_folder(config.out) / file for name, file in names.items()}
    write_table(pd.concat(rows, ignore_index=True), files["table"])
    write_json(files["summary"], {"schema": SWEEP_SCHEMA, "cells": summary})
    write_text(files["overview"], _markdown(summary))
    return files


def _runs(cell: TrainConfig) -> pd.DataFrame:
    """``loss, fold, seed`` and the metrics of each run of a cell."""
    rows = []
    for loss in cell.named_losses:
        folder = cell.folder_of(loss)
        if not (folder / PREDICTIONS).is_file():
            continue
        table = read_run_predictions(folder / PREDICTIONS)
        first = next(folder.glob(f"fold_*/seed_*/{MODEL_JSON}"))
        classes = parse_json(first.read_text(encoding="utf-8"))["classes"]
        rows += [
            {"loss": loss, "fold": fold, "seed": seed, **metrics}
            for (seed, fold), metrics in fold_metrics(table, classes, cell.order).items()
        ]
    return pd.DataFrame(rows)


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("macro_f1", "auroc_macro_ovr") if name in metrics}


def _markdown(summary: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| encoder | model | loss | macro-F1 (95 % CI) | AUROC (95 % CI) |", "|---|---|---|---:|---:|"]
    for row in summary:
        cells = [str(row[key]) for key in _KEY]
        for metric in ("macro_f1", "auroc_macro_ovr"):
            found = row.get(metric) or {}
            cells.append(_interval(found))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _interval(found: Mapping[str, Any]) -> str:
    if found.get("value") is None:
        return "–"
    if found.get("ci_low") is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['ci_low']:.3f}–{found['ci_high']:.3f})"
