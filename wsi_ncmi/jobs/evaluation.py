"""The evaluation job: metrics and report of any predictions table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.cohorts import read_labels
from wsi_ncmi.files import ensure_folder, write_json
from wsi_ncmi.jobs.config import EvaluationOptions
from wsi_ncmi.jobs.records import write_record
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.metrics import classes_of, evaluate_predictions, read_predictions
from wsi_ncmi.reporting import ReportInput, write_report, write_summary
from wsi_ncmi.slides import slide_id_of

__all__ = ["evaluate"]


def evaluate(
    predictions: Path,
    out: Path,
    *,
    labels: str | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    options: EvaluationOptions | None = None,
) -> JobResult:
    """Evaluates a predictions table.

    Args:
        predictions: CSV with ``slide_id``, ``p_<class>…`` and, unless ``labels`` is given, ``label`` and
            ``case_id``; or the predictions of CLAM or STAMP, a file or the folder of all folds.
        out: Where ``metrics.json`` and ``report.html`` go.
        labels: Labels table that gives truth, patient and centre.
        group: ``"slide_id"`` = the user says that each slide is a patient of its own.
        classes: CLAM only: names of its classes 0, 1, ….
        options: Intervals.

    Returns:
        Paths of ``metrics``, ``report`` and ``summary``.

    Raises:
        InputError: The table or the labels are wrong.
    """
    options = options or EvaluationOptions()
    rows = None
    if labels is not None:
        cohort = read_labels(labels, group=group)
        rows = [replace(row, slide_id=slide_id_of(row.slide_id)) for row in cohort.rows]
    frame = read_predictions(predictions, labels=rows, group=group, classes=classes)
    names = classes_of(frame)
    evaluation = evaluate_predictions(frame, names, resamples=options.resamples, seed=options.seed)
    ensure_folder(out)
    files = {"metrics": out / "metrics.json", "report": out / "report.html", "summary": out / "summary.md"}
    write_json(files["metrics"], evaluation.to_json())
    record = write_record(
        out / "run.json",
        config={"predictions": predictions, "labels": labels, "evaluation": vars(options)},
        classes=list(names),
    )
    warnings = []
    if group == "slide_id":
        warnings.append("Each slide was taken for a patient of its own (--group slide_id).")
    report = ReportInput(
        title=f"Evaluation of {predictions.name}",
        predictions=frame,
        evaluations={"": evaluation},
        config=record["config"],
        provenance=record["provenance"],
        warnings=warnings,
    )
    write_report(report, files["report"])
    write_summary(report, files["summary"])
    return JobResult(files)
