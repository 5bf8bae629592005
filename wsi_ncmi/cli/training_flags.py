"""Flags that ``train`` and ``compare`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AllowLeak",
    "Bag",
    "Epochs",
    "Features",
    "Folds",
    "Group",
    "Labels",
    "Overwrite",
    "RunOut",
    "Seeds",
    "SplitsFile",
    "Workers",
    "configuration",
]

Features = Annotated[
    list[Path],
    typer.Option(
        "--features",
        help="Folder of feature files, or a packed .npz; given several times, the embeddings are joined.",
    ),
]
Bag = Annotated[str | None, typer.Option(help="What a bag is: slide, or patient (all slides of one).")]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="CSV or ADAPTER:FILE; not needed where FEATURES carries labels."),
]
RunOut = Annotated[Path, typer.Option("--out", help="Run folder.")]
SplitsFile = Annotated[Path | None, typer.Option("--splits", help="Splits file; else folds are made.")]
Folds = Annotated[int | None, typer.Option(help="Number of folds (5).")]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training slides (20).")]
Group = Annotated[str | None, typer.Option(help="case_id (patient), or slide_id: each slide is a patient.")]
Workers = Annotated[int | None, typer.Option(help="Processes (one a core).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace runs of another configuration.")]
AllowLeak = Annotated[
    bool, typer.Option("--allow-leak", help="Train on a split that leaks; the report says so.")
]


def configuration(
    *,
    features: list[Path],
    bag: str | None,
    labels: str | None,
    splits: Path | None,
    folds: int | None,
    seeds: int | None,
    epochs: int | None,
    group: str | None,
    model: str | None,
    losses: list[str],
    workers: int | None,
    out: Path,
) -> dict[str, Any]:
    """The flags as nested values of the configuration; None = not given."""
    return {
        "name": out.name,
        "features": features[0] if features else None,
        "further_features": features[1:] or None,
        "bag": bag,
        "labels": labels,
        "splits": splits,
        "split": {"folds": folds, "group": group},
        "seeds": seeds,
        "training": {"epochs": epochs},
        "model": {"name": model},
        "losses": losses,
        "workers": workers,
    }
