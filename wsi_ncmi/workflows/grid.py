"""The grid encoders × models × losses × folds × seeds: one crew of processes, one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, ensure_folder, path_safe, write_json, write_text
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.mil import ModelConfig
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training import TrainingRequest, train_all

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GridRequest", "train_grid"]

GRID_SCHEMA = "wsi-ncmi/grid/1"
_KEY = ["encoder", "model", "loss"]


@dataclass(frozen=True, kw_only=True)
class GridRequest:
    """What to cross with what.

    Attributes:
        base: Labels, folds, seeds, losses and all that the cells share; its features, model and folder are
            those of the cells.
        encoders: Name → features, joined where there are several.
        models: Name → aggregator.
        out: Folder of the table; the cell of an encoder and a model is ``out/<encoder>/<model>``, what
            ``train`` leaves.
    """

    base: TrainingRequest
    encoders: Mapping[str, Sequence[Path]]
    models: Mapping[str, ModelConfig]
    out: Path


def train_grid(request: GridRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Trains all cells; finished runs are skipped, so that a grid may be stopped and may grow.

    Args:
        request: The grid.
        progress: Told about every epoch.

    Returns:
        ``table`` (a row a run), ``summary`` (a row a cell, with intervals) and ``overview`` (the same as
        Markdown); failures with the cell's name.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run of a cell has a result.
    """
    cells = _cells(request)
    results = train_all(list(cells.values()), workers=request.base.workers, progress=progress)
    if not results[0].files:  # another process of torchrun reports
        return JobResult({})
    failures = [
        f"{encoder}, {model}: {failure}"
        for (encoder, model), result in zip(cells, results, strict=True)
        for failure in result.failures
    ]
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return JobResult(_publish(request, cells), tuple(failures), tuple(notes))


def _cells(request: GridRequest) -> dict[tuple[str, str], TrainingRequest]:
    for what, names in (("encoders", request.encoders), ("models", request.models)):
        if not names:
            raise InputError(f"A grid needs at least one of its {what}.")
        if len({path_safe(name) for name in names}) < len(names):
            raise InputError(f"Two {what} of the grid would share a folder; give them other names.")
    return {
        (encoder, model): replace(
            request.base,
            features=paths[0],
            further_features=tuple(paths[1:]),
            model=options,
            out=request.out / path_safe(encoder) / path_safe(model),
            title=f"{request.base.title}: {encoder}, {model}",
        )
        for encoder, paths in request.encoders.items()
        for model, options in request.models.items()
    }


def _publish(request: GridRequest, cells: Mapping[tuple[str, str], TrainingRequest]) -> dict[str, Path]:
    import pandas as pd

    rows: list[pd.DataFrame] = []
    summary: list[dict[str, Any]] = []
    for (encoder, model), cell in cells.items():
        of_cell = _runs(cell)
        of_cell.insert(0, "encoder", encoder)
        of_cell.insert(1, "model", model)
        rows.append(of_cell)
        metrics = json.loads((cell.out / "metrics.json").read_text(encoding="utf-8"))
        for loss in cell.losses:
            found = metrics["losses"].get(loss) if "losses" in metrics else metrics
            if found is not None:
                summary.append({"encoder": encoder, "model": model, "loss": loss, **_figures(found)})
    files = {
        "table": request.out / "grid.csv",
        "summary": request.out / "grid.json",
        "overview": request.out / "grid.md",
    }
    ensure_folder(request.out)
    with atomic_path(files["table"]) as temporary:
        pd.concat(rows, ignore_index=True).to_csv(temporary, index=False, lineterminator="\n")
    write_json(files["summary"], {"schema": GRID_SCHEMA, "cells": summary})
    write_text(files["overview"], _markdown(summary))
    return files


def _runs(cell: TrainingRequest) -> pd.DataFrame:
    """``loss, fold, seed`` and the metrics of each run of a cell."""
    import pandas as pd

    from wsi_ncmi.metrics import fold_metrics
    from wsi_ncmi.training.checkpoint import MODEL_JSON
    from wsi_ncmi.training.runs import PREDICTIONS, read_predictions

    rows = []
    for loss in cell.losses:
        folder = cell.out if len(cell.losses) == 1 else cell.out / path_safe(loss)
        if not (folder / PREDICTIONS).is_file():
            continue
        table = read_predictions(folder / PREDICTIONS)
        first = next(folder.glob(f"fold_*/seed_*/{MODEL_JSON}"))
        classes = json.loads(first.read_text(encoding="utf-8"))["classes"]
        rows += [
            {"loss": loss, "fold": fold, "seed": seed, **metrics}
            for (seed, fold), metrics in fold_metrics(table, classes).items()
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
