"""Evaluation: metrics and report of any predictions table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import Cohort, read_labels
from wsi_ncmi.cohorts.labels import parse_spec
from wsi_ncmi.cohorts.leaks import LEAKING
from wsi_ncmi.core.config.keywords import takes_settings
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import job_folder, sha256_file, write_json
from wsi_ncmi.core.provenance import read_record, write_record
from wsi_ncmi.core.tables import read_table
from wsi_ncmi.core.values import SUSPECT, suspects
from wsi_ncmi.metrics import (
    PairedComparison,
    classes_of,
    compare_paired,
    evaluate_predictions,
    read_predictions,
)
from wsi_ncmi.metrics.external_predictions import prediction_files
from wsi_ncmi.prediction.verdicts import agreement, agreement_note, read_verdicts
from wsi_ncmi.reporting import ReportInput, write_outputs
from wsi_ncmi.reporting.run_report import compare_json
from wsi_ncmi.slides import SlideIndex
from wsi_ncmi.training.config import EvaluateConfig, EvaluationConfig
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)


@takes_settings("wsi_ncmi.training.config:EvaluateConfig", "predictions", "out")
def evaluate(config: EvaluateConfig) -> JobResult:
    """Evaluates a predictions table.

    Args:
        config: What and how.

    Returns:
        Paths of ``metrics``, ``report``, ``summary`` and ``tables``, of ``figures`` where any were drawn, and
        of ``differences`` where there was something to compare with, and ``verdicts`` where there were any.

    Raises:
        InputError: A table or the labels are wrong, or two runs tested other slides.

    Example:
        >>> result = evaluate("run/predictions.csv", "evaluation")  # doctest: +SKIP
        >>> result.metrics["macro_f1"].value  # doctest: +SKIP
    """
    options, out = config.evaluation, config.out
    verdicts, said = _verdicts(config)
    if verdicts and config.labels is None and not _is_labelled(config.predictions):
        return _agreement_alone(config, verdicts, said)
    cohort = None if config.labels is None else read_labels(config.labels, group=config.group)
    rows = None if cohort is None else cohort.rows

    def read(path: Path) -> pd.DataFrame:
        return read_predictions(_table(path), labels=rows, group=config.group, classes=config.classes)

    frame = read(config.predictions)
    names = classes_of(frame)
    all_paths = (config.predictions, *config.against)
    own, *rest = _named(all_paths).items()
    others = {name: read(path) for name, path in rest}
    comparisons = {name: _compared(frame, other, names, name, options) for name, other in others.items()}
    evaluated = partial(
        evaluate_predictions,
        classes=names,
        resamples=options.resamples,
        seed=options.seed,
        order=config.order,
    )
    evaluation = evaluated(frame)
    warnings = [LEAKING] if _leaked(config.predictions) else []
    warnings += [f"{name}: {LEAKING}" for name, path in rest if _leaked(path)]
    alike = () if cohort else suspects(frame["case_id"])
    notes = [*frame.attrs.get("notes", ()), *(_label_notes(cohort, frame) if cohort else ())]
    notes += [f"The patients {a!r} and {b!r} {SUSPECT}; are they one?" for a, b, *_ in alike]
    for note in notes:
        _LOG.warning("%s", note)
    job_folder(out)
    files = {"metrics": out / "metrics.json"}
    write_json(files["metrics"], evaluation.to_json())
    if verdicts:
        files["verdicts"] = out / "verdicts.json"
        write_json(files["verdicts"], verdicts)
    if comparisons:
        files["differences"] = out / "compare.json"
        found = {name: evaluated(other) for name, other in others.items()}
        content = compare_json(own[0], comparisons, {own[0]: evaluation, **found})
        write_json(files["differences"], content)
    hashes = {path.name: sha256_file(path) for path in _files(all_paths, config.labels)}
    record = write_record(
        out / "run.json",
        config={
            "predictions": config.predictions,
            "labels": config.labels,
            "against": list(config.against),
            "evaluation": vars(options),
            "order": list(config.order),
        },
        classes=list(names),
        hashes=hashes,
    )
    if config.group == "slide_id":
        warnings.append("Each slide was taken for a patient of its own (--group slide_id).")
    report = ReportInput(
        title=f"Evaluation of {config.predictions.name}",
        predictions=frame,
        evaluations={"": evaluation},
        comparisons=comparisons,
        config=record["config"],
        provenance=record["provenance"],
        hashes=hashes,
        warnings=[*warnings, *notes, *said],
    )
    return JobResult({**files, **write_outputs(report, out, options.figures)}, notes=said)


def _verdicts(config: EvaluateConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The agreement with verdicts, and it in words; both empty without verdicts."""
    if config.verdicts is None:
        return {}, ()
    options = config.evaluation
    found = agreement(
        read_table(_table(config.predictions)),
        read_verdicts(config.verdicts),
        resamples=options.resamples,
        seed=options.seed,
    )
    return found, (agreement_note(found),)


def _is_labelled(predictions: Path) -> bool:
    table = read_table(_table(predictions))
    return "label" in table.columns and any(row["label"] for row in table.rows)


def _agreement_alone(config: EvaluateConfig, verdicts: Mapping[str, Any], said: tuple[str, ...]) -> JobResult:
    """The result of predictions without labels."""
    if config.against:
        raise InputError("Runs are compared by their labels, and there are none: give --labels.")
    path = job_folder(config.out) / "verdicts.json"
    write_json(path, verdicts)
    return JobResult({"verdicts": path}, notes=said)


def _label_notes(cohort: Cohort, frame: pd.DataFrame) -> list[str]:
    """What the reader of the labels noted, and labels without a prediction."""
    predicted = SlideIndex(frame["slide_id"])
    names = {row.slide_id: row.case_id for row in cohort.rows}  # STAMP predicts patients
    idle = [s for s, case in names.items() if not predicted.candidates(s) and not predicted.candidates(case)]
    more = (
        [f"{counted(len(idle), 'labelled slide')} without a prediction, such as {idle[0]}."] if idle else []
    )
    return [*cohort.notes, *more]


def _table(path: Path) -> Path:
    """The table of a run folder of ours, or the path as it is."""
    return path / "predictions.csv" if (path / "predictions.csv").is_file() else path


def _leaked(predictions: Path) -> bool:
    """Whether a run of ours that these are the predictions of was trained on a split that leaks."""
    table = _table(predictions)
    if table.name != "predictions.csv":
        return False
    for folder in (table.parent, table.parent.parent):  # of several losses each has a folder in the run
        try:
            if read_record(folder / "run.json").get("leaks"):
                return True
        except InputError:  # somebody else's file of that name
            continue
    return False


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Each path under its own name, with the folder before it where two are alike."""
    alike = len({path.name for path in paths}) < len(paths)
    named = {f"{path.parent.name}/{path.name}" if alike else path.name: path for path in paths}
    if len(named) < len(paths):
        raise InputError("Two runs to compare with have the same name; give each once, under another name.")
    return named


def _compared(
    frame: pd.DataFrame, other: pd.DataFrame, names: Sequence[str], name: str, options: EvaluationConfig
) -> PairedComparison:
    if set(classes_of(other)) != set(names):
        theirs, ours = ", ".join(classes_of(other)), ", ".join(names)
        raise InputError(
            f"{name} has the classes {theirs}, not {ours}; only runs of one task can be compared."
        )
    try:
        return compare_paired(frame, other, names, resamples=options.resamples, seed=options.seed)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _files(predictions: Sequence[Path], labels: str | None) -> list[Path]:
    found = [file for path in predictions for _, file in prediction_files(_table(path))]
    if labels is not None:
        found.append(parse_spec(labels).path)
    return found
