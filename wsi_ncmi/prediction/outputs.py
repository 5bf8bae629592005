"""Output files of a prediction job: tables of slides and patients, JSON and the page."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import atomic_path, parse_json, write_json
from wsi_ncmi.core.provenance import collect_provenance, write_record
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.pages import write_prediction_page
from wsi_ncmi.prediction.slide_prediction import ABSTAIN, SlidePrediction, below
from wsi_ncmi.prediction.slide_records import explanation_settings, rules

if TYPE_CHECKING:
    import pandas as pd

_SCHEMA = "wsi-ncmi-predictions/1"
_FIRST = ("slide_id", "case_id", "fold", "seed", "label", "prediction")
_LAST = (
    "decision", "confidence", "agreement", "tiles", "ood", "ood_score", "reason", "shown", "model_digest",
)  # fmt: skip


def write_predictions(
    config: PredictConfig,
    bundle: ModelBundle,
    predictions: Sequence[SlidePrediction],
    *,
    thumbnails: Path,
    seconds: Mapping[str, float],
) -> dict[str, Path]:
    """Writes the tables, ``predictions.json``, ``predict.json`` and ``report.html``.

    Args:
        config: Output folder, table of patients and threshold.
        bundle: The model.
        predictions: The prediction for each slide.
        thumbnails: Folder of the thumbnails.
        seconds: Stage → seconds so far.

    Returns:
        Name → path.
    """
    started = time.perf_counter()
    out = config.out
    threshold = bundle.calibration.abstain_below if config.abstain_below is None else config.abstain_below
    files = {
        "predictions": out / "predictions.csv",
        "answers": out / "predictions.json",
        "attention": out / "attention",
    }
    _write_csv(slide_table(predictions, bundle.classes, bundle.calibration), files["predictions"])
    patients = None
    if config.cases is not None:
        calibration = replace(bundle.calibration, abstain_below=threshold)
        patients = patient_table(predictions, bundle.classes, calibration)
        files["patients"] = out / "patients.csv"
        _write_csv(patients, files["patients"])
    provenance = collect_provenance()
    write_json(
        files["answers"],
        {
            "schema": _SCHEMA,
            "model": {**bundle.identity, "classes": list(bundle.classes)},
            "abstain_below": threshold,
            "calibration": bundle.calibration.to_json(),
            "slides": [prediction.to_json() for prediction in predictions],
            "patients": [] if patients is None else parse_json(patients.to_json(orient="records")),
            "provenance": provenance,
        },
    )
    write_prediction_page(
        out / "report.html",
        predictions,
        bundle,
        thumbnails=thumbnails,
        patients=patients,
        provenance=provenance,
        seconds=seconds,
        abstain_below=threshold,
    )
    spent = {**seconds, "tables and pages": time.perf_counter() - started}
    write_record(
        out / "predict.json",
        config={
            "model": config.model,
            "members": len(bundle.ensemble.members),
            "features": dict(bundle.features),
            "rules": rules(config),
            "explanations": explanation_settings(config),
            "cases": config.cases,
        },
        classes=list(bundle.classes),
        model_digest=bundle.digest,
        model_version=bundle.version,
        seconds={stage: round(value, 3) for stage, value in spent.items()},
    )
    return {**files, "report": out / "report.html"}


def prediction_notes(
    predictions: Sequence[SlidePrediction], bundle: ModelBundle, seconds: Mapping[str, float]
) -> tuple[str, ...]:
    """Sentences for the end of the job."""
    decided = sum(prediction.decision in bundle.classes for prediction in predictions)
    flagged = sum(bool(prediction.flags) for prediction in predictions)
    without = sum(not prediction.prediction for prediction in predictions)
    notes = [
        f"{counted(decided, 'slide')} decided, {len(predictions) - decided - without} abstained from, "
        f"{without} without prediction; {flagged} out of distribution (OOD).",
        "Seconds by stage: " + ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items()) + ".",
    ]
    if bundle.features.get("bag") == "patient":
        notes.append("The model was trained on bags of patients; each slide was predicted on its own.")
    if bundle.calibration.at_limit:
        notes.append(bundle.calibration.at_limit)
    if bundle.ood is None:
        notes.append(
            "The model carries no statistics of its training slides, so no slide is flagged as out of "
            "distribution (OOD); 'wsi-ncmi export' adds them."
        )
    return tuple(notes)


def read_cases(path: Path) -> Mapping[str, str]:
    """Reads ``slide_id,case_id``: ``slide_key`` of the slide → patient.

    Raises:
        InputError: A column or value is missing, or a slide belongs to two patients.
    """
    from wsi_ncmi.core.tables import read_table
    from wsi_ncmi.core.values import holds_control
    from wsi_ncmi.slides import slide_key

    table = read_table(path)
    table.require(("slide_id", "case_id"))
    cases: dict[str, str] = {}
    for row in table.rows:
        slide_id = slide_key(row["slide_id"])
        if not row["slide_id"] or not row["case_id"]:
            raise InputError(
                f"{path}, row {row.line}: slide_id and case_id must both be given{row.no_values}."
            )
        if holds_control(row["case_id"]):
            raise table.problem(row, "case_id", "it holds a control character; remove it")
        if cases.setdefault(slide_id, row["case_id"]) != row["case_id"]:
            raise InputError(f"{path}, row {row.line}: slide {slide_id!r} belongs to two patients; keep one.")
    return cases


def case_notes(predictions: Iterable[SlidePrediction], cases: Mapping[str, str]) -> tuple[str, ...]:
    """Sentences about slides without a patient, and patients spelled almost alike.

    Args:
        predictions: Of all slides.
        cases: From ``read_cases``; empty where patients weren't given.
    """
    from wsi_ncmi.core.values import SUSPECT, suspects, suspects_between

    stray = [prediction.slide_id for prediction in predictions if not prediction.case_id]
    if not cases:
        return ()
    notes = [
        f"The patients {a!r} and {b!r} {SUSPECT}; are they one?" for a, b, *_ in suspects(cases.values())
    ]
    if stray:
        alike = suspects_between(stray[:1], cases)
        hint = "".join(f", but {name!r} is, and these {SUSPECT}" for name in alike.values())
        notes.append(
            f"{counted(len(stray), 'slide')} not in the table of patients, such as {stray[0]!r}{hint}."
        )
    return tuple(notes)


def slide_table(
    predictions: Iterable[SlidePrediction], classes: Sequence[str], calibration: Calibration
) -> pd.DataFrame:
    """One row a slide, sorted.

    Args:
        predictions: The prediction for each slide.
        classes: All classes, in order.
        calibration: What the model's probabilities rest on.

    Returns:
        ``slide_id, case_id, fold, seed, label, prediction, p_<class>…`` (fold, seed and label are empty: a
        new slide has none), then ``decision`` (the class, or ``abstain``), ``confidence``, ``agreement``,
        ``tiles``, ``ood`` (names of the OOD flags, with ``;``), ``ood_score``, ``reason``, ``shown`` (the
        confidence as it may be read out, a bound where the validation slides support no more) and
        ``model_digest`` (of the model that answered).
        Prediction, decision and probabilities are empty where ``reason`` says why.
    """
    import pandas as pd

    rows = [
        {
            "slide_id": prediction.slide_id,
            "case_id": prediction.case_id,
            "fold": "",
            "seed": "",
            "label": "",
            "prediction": prediction.prediction,
            **{f"p_{name}": prediction.probabilities.get(name) for name in classes},
            "decision": prediction.decision,
            "confidence": prediction.confidence,
            "agreement": prediction.agreement,
            "tiles": prediction.tiles,
            "ood": ";".join(prediction.flag_names),
            "ood_score": prediction.ood_score,
            "reason": prediction.reason,
            "shown": prediction.read_out(calibration).get(prediction.prediction, ""),
            "model_digest": prediction.model.get("digest", ""),
        }
        for prediction in sorted(predictions, key=lambda prediction: prediction.slide_id)
    ]
    columns = (*_FIRST, *(f"p_{name}" for name in classes), *_LAST)
    return pd.DataFrame(rows, columns=columns)  # a table without slides has its header too


def patient_table(
    predictions: Iterable[SlidePrediction], classes: Sequence[str], calibration: Calibration
) -> pd.DataFrame:
    """One row a patient: the mean of the calibrated probabilities of its slides.

    A patient is abstained from where the mean's largest probability is below the threshold, where a slide
    of it has no decision (a prediction that leaves out a slide is about another patient), and where two
    models answered its slides: no validation stands behind a mean of both.

    For CAMELYON-17's classes the prediction is the pN stage that follows from the slides by the challenge's
    rule: one macro-metastasis among five nodes makes the patient, and a mean would bury it. It depends on
    every slide, so its confidence is that of the least confident one.

    Args:
        predictions: Slides with their patients; those without are left out.
        classes: All classes, in order.
        calibration: The threshold, and what the probabilities rest on.

    Returns:
        ``case_id, slides, answered, prediction, p_<class>…`` (means), ``decision, confidence, ood`` (slides
        with flags), ``reason`` and ``shown`` (the confidence as it may be read out), sorted by patient.
    """
    import pandas as pd

    from wsi_ncmi.metrics.staging import SLIDE_LABELS

    by_patient: dict[str, list[SlidePrediction]] = {}
    for prediction in predictions:
        if prediction.case_id:
            by_patient.setdefault(prediction.case_id, []).append(prediction)
    staged = set(classes) == set(SLIDE_LABELS)
    rows = [
        _patient(case_id, by_patient[case_id], classes, calibration, staged) for case_id in sorted(by_patient)
    ]
    columns = [
        "case_id", "slides", "answered", "prediction", *(f"p_{name}" for name in classes), "decision",
        "confidence", "ood", "reason", "shown",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _patient(
    case_id: str,
    slides: Sequence[SlidePrediction],
    classes: Sequence[str],
    calibration: Calibration,
    staged: bool,
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
    models = len({slide.model.get("digest", "") for slide in predicted})
    if models > 1:
        reasons.append(f"its slides were answered by {models} models")
    prediction, confidence = "", None
    if mean is not None and staged:
        from wsi_ncmi.metrics.staging import patient_stage

        prediction = patient_stage(slide.prediction for slide in predicted)
        confidence = min(slide.confidence or 0.0 for slide in predicted)
    elif mean is not None:
        prediction, confidence = classes[int(mean.argmax())], float(mean.max())
        if confidence < calibration.abstain_below:
            reasons.append(below(confidence, calibration.abstain_below))
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
        # No more than its least supported slide.
        "shown": ""
        if confidence is None
        else calibration.shown(confidence, min((s.prediction for s in predicted), key=calibration.most)),
    }


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
