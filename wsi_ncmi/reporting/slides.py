"""Slides worth reviewing: the most confidently wrong and right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.metrics import Evaluation

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SlideRow:
    """One slide, its predictions averaged over seeds (and folds, where it is tested in several).

    Attributes:
        slide_id: Name.
        case_id: Patient.
        centre: Hospital or ``""``.
        label: Truth.
        prediction: What most of the runs predict.
        p_prediction: Mean probability of that class.
        p_label: Mean probability of the true class.
        wrong: Runs that got it wrong.
        runs: Runs that tested it.
        folds: Folds that tested it, as text.
        tiles: Tiles of the slide as text, or ``""``.
    """

    slide_id: str
    case_id: str
    centre: str
    label: str
    prediction: str
    p_prediction: float
    p_label: float
    wrong: int
    runs: int
    folds: str
    tiles: str


def best_and_worst(
    predictions: pd.DataFrame,
    evaluation: Evaluation,
    *,
    ledger: pd.DataFrame | None = None,
    limit_worst: int = 12,
    limit_best: int = 6,
) -> tuple[list[SlideRow], list[SlideRow], int]:
    """Chooses slides.

    Args:
        predictions: Rows of one loss.
        evaluation: Its evaluation, for the classes.
        ledger: For the number of tiles.
        limit_worst: Rows of the worst.
        limit_best: Rows of the best.

    Returns:
        ``(worst, best, n_wrong)``: slides that most runs get wrong, the most confident errors first; slides
        that all runs get right, the most confident of each class in turn; how many slides are wrong in most
        runs.
    """
    rows = all_slides(predictions, evaluation, ledger=ledger)
    wrong = sorted((row for row in rows if row.prediction != row.label), key=lambda row: -row.p_prediction)
    right = sorted((row for row in rows if row.wrong == 0), key=lambda row: -row.p_label)
    return wrong[:limit_worst], _of_each_class(right, evaluation.classes)[:limit_best], len(wrong)


def _of_each_class(rows: Sequence[SlideRow], classes: Sequence[str]) -> list[SlideRow]:
    """One of each class in turn, as long as there are any; a patient's further slides last."""
    queues = {name: [row for row in rows if row.label == name] for name in classes}
    ordered: list[SlideRow] = []
    seen: set[str] = set()
    while any(queues.values()):
        for queue in queues.values():
            if queue:
                row = next((row for row in queue if row.case_id not in seen), queue[0])
                queue.remove(row)
                seen.add(row.case_id)
                ordered.append(row)
    return ordered


def all_slides(
    predictions: pd.DataFrame, evaluation: Evaluation, *, ledger: pd.DataFrame | None = None
) -> list[SlideRow]:
    """Every slide of one loss, by id; arguments as for :func:`best_and_worst`."""
    classes = evaluation.classes
    columns = [f"p_{name}" for name in classes]
    tiles: dict[str, str] = {}
    if ledger is not None and "tiles" in ledger.columns:
        tiles = {
            str(i): f"{int(n):,}" for i, n in zip(ledger["slide_id"], ledger["tiles"], strict=True) if n == n
        }
    rows = []
    for slide_id, part in predictions.groupby("slide_id", sort=True):
        mean = part[columns].to_numpy(dtype=np.float64).mean(axis=0)
        label = str(part["label"].iloc[0])
        votes = part["prediction"].astype(str).value_counts()
        # Equal votes: the class that the mean probability prefers.
        tied = [name for name in classes if votes.get(name, 0) == votes.max()]
        prediction = max(tied, key=lambda name: mean[classes.index(name)])
        rows.append(
            SlideRow(
                slide_id=str(slide_id),
                case_id=str(part["case_id"].iloc[0]),
                centre=str(part["centre"].iloc[0]) if "centre" in part.columns else "",
                label=label,
                prediction=prediction,
                p_prediction=float(mean[classes.index(prediction)]),
                p_label=float(mean[classes.index(label)]),
                wrong=int((part["prediction"].astype(str) != label).sum()),
                runs=len(part),
                folds=", ".join(str(fold) for fold in sorted(set(part["fold"]))),
                tiles=tiles.get(str(slide_id), ""),
            )
        )
    return rows
