"""Metrics, comparison and report of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import PatientBags
from wsi_ncmi.cohorts.leaks import LEAKING
from wsi_ncmi.core.files import path_safe, sha256_file, write_json
from wsi_ncmi.core.provenance import relative_paths
from wsi_ncmi.metrics import Evaluation, PairedComparison, compare_paired, evaluate_predictions, fold_metrics
from wsi_ncmi.reporting import (
    ReportInput,
    SlidePicture,
    best_and_worst,
    cohort_flow,
    write_outputs,
    write_table,
)
from wsi_ncmi.reporting.pictures import pictures_of
from wsi_ncmi.training.runs import VALIDATION
from wsi_ncmi.training.runs import read_predictions as read_run_predictions
from wsi_ncmi.workflows.compare_file import compare_json

if TYPE_CHECKING:
    import pandas as pd

    from wsi_ncmi.training import ExperimentResult
    from wsi_ncmi.workflows.cohort_data import CohortData
    from wsi_ncmi.workflows.training import TrainingRequest

__all__ = ["publish_run", "read_ledger_table"]


def publish_run(
    out: Path,
    request: TrainingRequest,
    data: CohortData,
    result: ExperimentResult,
    record: Mapping[str, Any],
) -> dict[str, Path]:
    """Writes ``predictions.csv``, ``metrics.json``, the report and, for several losses, ``compare.*``.

    Args:
        out: Run folder.
        request: What was asked for.
        data: Cohort, folds and their warnings.
        result: Predictions and curves.
        record: Content of ``run.json``.

    Returns:
        Name → path of what was written.
    """
    classes = data.cohort.classes
    names = [name for name in request.losses if name in set(result.predictions["loss"])]
    tables = {
        name: result.predictions[result.predictions["loss"] == name].drop(columns="loss") for name in names
    }
    options = request.evaluation
    evaluations = {
        name: evaluate_predictions(
            table,
            classes,
            resamples=options.resamples,
            seed=options.seed,
            validation=_validation(out if len(request.losses) == 1 else out / path_safe(name), table),
        )
        for name, table in tables.items()
    }
    headline = names[0]
    files = {"predictions": out / "predictions.csv", "metrics": out / "metrics.json"}
    write_table(tables[headline], files["predictions"])
    write_json(files["metrics"], _metrics(evaluations))
    comparisons: dict[str, PairedComparison] = {}
    if len(names) > 1:
        comparisons = _comparisons(tables, classes, options.resamples, options.seed)
        files["compare"] = out / "compare.csv"
        write_table(_rows(tables, classes), files["compare"])
        files["differences"] = out / "compare.json"
        write_json(files["differences"], compare_json(headline, comparisons, evaluations))
    ledger = read_ledger_table(request.ledger)
    warnings = list(data.warnings)
    if request.allow_leak and any(leak.fatal for leak in data.leaks):
        warnings.insert(0, LEAKING)
    warnings += [f"Run without result: {failed.reason}" for failed in result.failures]
    report = ReportInput(
        title=request.title,
        predictions=result.predictions,
        evaluations=evaluations,
        curves=result.curves,
        ledger=ledger,
        flow=cohort_flow(
            used_slides=len(data.of_slides[1].rows),
            used_patients=len(data.cohort.case_ids),
            ledger=ledger,
            unmatched=data.match.unmatched,
        ),
        splits=data.splits.meta,
        comparisons=comparisons,
        leaks=[leak.detail for leak in data.leaks if leak.fatal],
        audit_remarks=[leak.detail for leak in data.leaks if not leak.fatal],
        compared=data.compared,
        audit_notes=data.evidence.notes,
        config=record["config"]
        if request.job is None
        else {**relative_paths(request.job), **record["config"]},
        provenance=record["provenance"],
        hashes={**data.hashes, "predictions.csv": sha256_file(files["predictions"])},
        warnings=warnings,
        pictures=_pictures(tables[headline], evaluations[headline], data, result.folders[headline]),
        attention=request.model.reported_attention,
        features=record["features"],
    )
    return {**files, **write_outputs(report, out, options.figures)}


def _pictures(
    table: pd.DataFrame, evaluation: Evaluation, data: CohortData, folder: Path
) -> Mapping[str, SlidePicture]:
    if isinstance(data.source, PatientBags):
        return {}  # a bag of several slides has no picture
    worst, best, _ = best_and_worst(table, evaluation)
    return pictures_of([row.slide_id for row in (*worst, *best)], data.source, folder, table)


def read_ledger_table(path: Path | None) -> pd.DataFrame | None:
    """The extraction's ledger as a table, or None where there is none."""
    import pandas as pd

    if path is None or not path.is_file():
        return None
    return pd.read_csv(path, dtype={"slide_id": str, "reason": str}, keep_default_na=False)


def _metrics(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    # The headline's metrics stand at the top, as for a single loss; the others below "losses".
    headline = next(iter(evaluations))
    content = {"loss": headline, **evaluations[headline].to_json()}
    if len(evaluations) > 1:
        content["losses"] = {name: evaluation.to_json() for name, evaluation in evaluations.items()}
    return content


def _comparisons(
    tables: Mapping[str, pd.DataFrame], classes: Sequence[str], resamples: int, seed: int
) -> dict[str, PairedComparison]:
    headline, *others = tables
    found = {}
    for other in others:
        # Runs without result leave unpaired rows; only what both losses have is compared.
        keys = ["seed", "fold"]
        a, b = tables[headline], tables[other]
        both = a[keys].drop_duplicates().merge(b[keys].drop_duplicates(), on=keys)
        if len(both):
            found[other] = compare_paired(
                a.merge(both, on=keys), b.merge(both, on=keys), classes, resamples=resamples, seed=seed
            )
    return found


def _validation(folder: Path, table: pd.DataFrame) -> pd.DataFrame | None:
    # None where a run of an earlier version left none: the temperature then comes from the other folds.
    runs = sorted(set(zip(table["fold"], table["seed"], strict=True)))
    files = [folder / f"fold_{fold}" / f"seed_{seed}" / VALIDATION for fold, seed in runs]
    if not all(file.is_file() for file in files):
        return None
    import pandas as pd

    return pd.concat([read_run_predictions(file) for file in files], ignore_index=True)


def _rows(tables: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"loss": name, "fold": fold, "seed": seed, **metrics}
        for name, table in tables.items()
        for (seed, fold), metrics in fold_metrics(table, classes).items()
    ]
    return pd.DataFrame(rows)
