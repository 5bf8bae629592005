"""Answers as tables: ``predictions.csv`` a row a slide, ``patients.csv`` a row a patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.metrics.staging import SLIDE_LABELS, patient_stage
from wsi_ncmi.prediction.answer import ABSTAIN, SlideAnswer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["patient_table", "slide_table"]


def slide_table(answers: Iterable[SlideAnswer], classes: Sequence[str]) -> pd.DataFrame:
    """One row a slide, sorted.

    Args:
        answers: What is said of each slide.
        classes: All classes, in order.

    Returns:
        ``slide_id, case_id, fold, seed, label, prediction, p_<class>…`` (fold, seed and label are empty: a
        new slide has none), then ``decision`` (the class, or ``abstain``), ``confidence``, ``agreement``,
        ``tiles``, ``ood`` (names of what is unlike the training, with ``;``), ``ood_score`` and ``reason``.
        Prediction, decision and probabilities are empty where ``reason`` says why.
    """
    import pandas as pd

    rows = [
        {
            "slide_id": answer.slide_id,
            "case_id": answer.case_id,
            "fold": "",
            "seed": "",
            "label": "",
            "prediction": answer.prediction,
            **{f"p_{name}": answer.probabilities.get(name) for name in classes},
            "decision": answer.decision,
            "confidence": answer.confidence,
            "agreement": answer.agreement,
            "tiles": answer.tiles,
            "ood": ";".join(flag.name for flag in answer.flags),
            "ood_score": answer.ood_score,
            "reason": answer.reason,
        }
        for answer in sorted(answers, key=lambda answer: answer.slide_id)
    ]
    return pd.DataFrame(rows)


def patient_table(
    answers: Iterable[SlideAnswer], classes: Sequence[str], *, abstain_below: float
) -> pd.DataFrame:
    """One row a patient: the mean of the calibrated probabilities of its slides.

    A patient is abstained from where the mean's largest probability is below the threshold, and where a slide
    of it has no answer: an answer that leaves out a slide is about another patient.

    For CAMELYON-17's classes the answer is the pN stage that follows from the slides by the challenge's rule:
    one macro-metastasis among five nodes makes the patient, and a mean would bury it. It hangs on every
    slide, so its confidence is that of the least sure one.

    Args:
        answers: Slides with their patients; those without are left out.
        classes: All classes, in order.
        abstain_below: The threshold.

    Returns:
        ``case_id, slides, answered, prediction, p_<class>…`` (means), ``decision, confidence, ood`` (slides
        with flags) and ``reason``, sorted by patient.
    """
    import pandas as pd

    by_patient: dict[str, list[SlideAnswer]] = {}
    for answer in answers:
        if answer.case_id:
            by_patient.setdefault(answer.case_id, []).append(answer)
    staged = set(classes) == set(SLIDE_LABELS)
    rows = [
        _patient(case_id, by_patient[case_id], classes, abstain_below, staged)
        for case_id in sorted(by_patient)
    ]
    columns = [
        "case_id", "slides", "answered", "prediction", *(f"p_{name}" for name in classes), "decision",
        "confidence", "ood", "reason",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _patient(
    case_id: str, slides: Sequence[SlideAnswer], classes: Sequence[str], abstain_below: float, staged: bool
) -> Mapping[str, object]:
    predicted = [slide for slide in slides if slide.prediction]
    mean = None
    if predicted:
        mean = np.mean([[slide.probabilities[name] for name in classes] for slide in predicted], axis=0)
    without = len(slides) - len(predicted)
    abstained = sum(slide.decision == ABSTAIN for slide in slides)
    reasons = []
    if without:
        reasons.append(f"{without} of {len(slides)} slides have no prediction")
    if abstained:
        reasons.append(f"{abstained} of {len(slides)} slides are abstained from")
    prediction, confidence = "", None
    if mean is not None and staged:
        prediction = patient_stage(slide.prediction for slide in predicted)
        confidence = min(slide.confidence or 0.0 for slide in predicted)
    elif mean is not None:
        prediction, confidence = classes[int(mean.argmax())], float(mean.max())
        if confidence < abstain_below:
            reasons.append(f"its largest probability {confidence:.3f} is below {abstain_below:.3f}")
    return {
        "case_id": case_id,
        "slides": len(slides),
        "answered": len(predicted) - abstained,
        "prediction": prediction,
        **{f"p_{name}": None if mean is None else float(mean[i]) for i, name in enumerate(classes)},
        "decision": "" if mean is None else ABSTAIN if reasons else prediction,
        "confidence": confidence,
        "ood": sum(bool(slide.flags) for slide in slides),
        "reason": "; ".join(reasons),
    }
