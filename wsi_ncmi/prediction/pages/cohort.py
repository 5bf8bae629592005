"""The page of all slides of a prediction job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.files import write_text
from wsi_ncmi.prediction.answer import ABSTAIN, SlideAnswer
from wsi_ncmi.prediction.bundle.model import ModelBundle
from wsi_ncmi.prediction.pages.rendering import data_uri, render

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_prediction_page"]

_MOST_THUMBNAILS = 200


def write_prediction_page(
    path: Path,
    answers: Sequence[SlideAnswer],
    bundle: ModelBundle,
    *,
    thumbnails: Path,
    patients: pd.DataFrame | None,
    provenance: Mapping[str, Any],
    seconds: Mapping[str, float] | None = None,
    abstain_below: float | None = None,
) -> None:
    """Writes the page, atomically.

    Slides that need a person come first: those without prediction, then those abstained from, the farthest
    from the training first, then the others, the least sure first.

    Args:
        path: Where to.
        answers: What is said of each slide.
        bundle: The model.
        thumbnails: Folder with ``<slide_id>.jpg``; the first ones are embedded.
        patients: As ``patient_table`` returns it, or None.
        provenance: Versions and hardware.
        seconds: Stage → seconds that it took in this job.
        abstain_below: Threshold in force, where it isn't the bundle's.
    """
    ordered = sorted(answers, key=_urgency)
    slides = [
        {
            "answer": answer,
            "picture": data_uri(thumbnails / f"{answer.slide_id}.jpg") if number < _MOST_THUMBNAILS else "",
            "chances": list(answer.probabilities.items()),
        }
        for number, answer in enumerate(ordered)
    ]
    decisions = Counter(answer.decision for answer in answers)
    html = render(
        "predictions.html.j2",
        bundle=bundle,
        counts=[(name, decisions.get(name, 0)) for name in bundle.classes],
        abstained=decisions.get(ABSTAIN, 0),
        unpredicted=decisions.get("", 0),
        flagged=sum(bool(answer.flags) for answer in answers),
        threshold=bundle.calibration.abstain_below if abstain_below is None else abstain_below,
        slides=slides,
        patients=[] if patients is None else patients.to_dict("records"),
        provenance=provenance,
        seconds=dict(seconds or {}),
    )
    write_text(path, html)


def _urgency(answer: SlideAnswer) -> tuple[int, float, str]:
    if not answer.prediction:
        return 0, 0.0, answer.slide_id
    if answer.decision == ABSTAIN:
        return 1, -(answer.ood_score or 0.0), answer.slide_id
    return 2, answer.confidence or 0.0, answer.slide_id
