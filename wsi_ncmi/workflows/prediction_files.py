"""What a prediction job leaves about all its slides: tables, JSON, the page; and the patients of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, write_json
from wsi_ncmi.core.provenance import collect_provenance, write_record
from wsi_ncmi.prediction import ModelBundle
from wsi_ncmi.prediction.answer import SlideAnswer
from wsi_ncmi.prediction.pages.cohort import write_prediction_page
from wsi_ncmi.prediction.table import patient_table, slide_table

if TYPE_CHECKING:
    import pandas as pd

    from wsi_ncmi.workflows.prediction import PredictionRequest

__all__ = ["notes_of", "publish_predictions", "read_cases"]

_SCHEMA = "wsi-ncmi-predictions/1"


def publish_predictions(
    out: Path,
    bundle: ModelBundle,
    answers: Sequence[SlideAnswer],
    *,
    request: PredictionRequest,
    thumbnails: Path,
    with_patients: bool,
    seconds: Mapping[str, float],
) -> dict[str, Path]:
    """Writes the tables, ``predictions.json``, ``predict.json`` and ``report.html``.

    Args:
        out: Output folder.
        bundle: The model.
        answers: What is said of each slide.
        request: What was asked for.
        thumbnails: Folder of the slides in small.
        with_patients: Whether patients are known.
        seconds: Stage → seconds so far.

    Returns:
        Name → path.
    """
    started = time.perf_counter()
    own = bundle.calibration.abstain_below
    threshold = own if request.rules.abstain_below is None else request.rules.abstain_below
    files = {
        "predictions": out / "predictions.csv",
        "answers": out / "predictions.json",
        "attention": out / "attention",
    }
    _write_csv(slide_table(answers, bundle.classes), files["predictions"])
    patients = None
    if with_patients:
        patients = patient_table(answers, bundle.classes, abstain_below=threshold)
        files["patients"] = out / "patients.csv"
        _write_csv(patients, files["patients"])
    provenance = collect_provenance()
    write_json(
        files["answers"],
        {
            "schema": _SCHEMA,
            "model": {"name": bundle.name, "digest": bundle.digest, "classes": list(bundle.classes)},
            "abstain_below": threshold,
            "calibration": bundle.calibration.to_json(),
            "slides": [answer.to_json() for answer in answers],
            "patients": [] if patients is None else json.loads(patients.to_json(orient="records")),
            "provenance": provenance,
        },
    )
    write_prediction_page(
        out / "report.html",
        answers,
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
            "model": request.model,
            "members": len(bundle.ensemble.members),
            "features": dict(bundle.features),
            "rules": asdict(request.rules),
            "explanations": asdict(request.explanations),
            "cases": request.cases,
        },
        classes=list(bundle.classes),
        model_digest=bundle.digest,
        seconds={stage: round(value, 3) for stage, value in spent.items()},
    )
    return {**files, "report": out / "report.html"}


def notes_of(
    answers: Sequence[SlideAnswer], bundle: ModelBundle, seconds: Mapping[str, float]
) -> tuple[str, ...]:
    """Sentences worth telling at the end of the job."""
    answered = sum(answer.decision in bundle.classes for answer in answers)
    flagged = sum(bool(answer.flags) for answer in answers)
    without = sum(not answer.prediction for answer in answers)
    notes = [
        f"{answered} slides answered, {len(answers) - answered - without} abstained from, {without} without "
        f"prediction; {flagged} are unlike the training.",
        "Seconds by stage: " + ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items()) + ".",
    ]
    if bundle.features.get("bag") == "patient":
        notes.append("The model was trained on bags of patients; each slide was predicted on its own.")
    if bundle.reference is None:
        notes.append(
            "The model carries no statistics of its training slides, so no slide is flagged as unlike them; "
            "'wsi-ncmi export' adds them."
        )
    return tuple(notes)


def read_cases(path: Path) -> Mapping[str, str]:
    """Reads ``slide_id,case_id``.

    Raises:
        InputError: A column or value is missing, or a slide belongs to two patients.
    """
    from wsi_ncmi.cohorts.table import read_table
    from wsi_ncmi.slides import slide_id_of

    table = read_table(path)
    table.require(("slide_id", "case_id"))
    cases: dict[str, str] = {}
    for row in table.rows:
        slide_id = slide_id_of(row["slide_id"])
        if not slide_id or not row["case_id"]:
            raise InputError(f"{path}, row {row.line}: slide_id and case_id must both be given.")
        if cases.setdefault(slide_id, row["case_id"]) != row["case_id"]:
            raise InputError(f"{path}, row {row.line}: slide {slide_id!r} belongs to two patients; keep one.")
    return cases


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
