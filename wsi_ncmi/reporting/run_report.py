"""Files of a trained run: ``run.json``, predictions, metrics, paired comparison and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import PatientBags, compared_slides
from wsi_ncmi.cohorts.leaks import LEAKING
from wsi_ncmi.core.files import sha256_file, write_json
from wsi_ncmi.core.provenance import path_from, relative_paths, write_record
from wsi_ncmi.metrics import Evaluation, PairedComparison, compare_paired, evaluate_predictions, fold_metrics
from wsi_ncmi.reporting.exports import write_outputs, write_table
from wsi_ncmi.reporting.report_input import ReportInput, cohort_flow
from wsi_ncmi.reporting.slides import SlidePicture, best_and_worst, pictures_of
from wsi_ncmi.training import ExperimentResult, TrainConfig, TrainingData
from wsi_ncmi.training.runs import VALIDATION, read_run_predictions

if TYPE_CHECKING:
    import pandas as pd

COMPARE_SCHEMA = "wsi-ncmi/compare/1"


def report_run(
    config: TrainConfig,
    data: TrainingData,
    result: ExperimentResult,
    *,
    ledger: Path | None = None,
    job: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Writes the record, predictions, metrics and report of a training, for several losses ``compare.*`` too.

    Args:
        config: What was trained, and into which folder.
        data: Cohort, folds and their warnings.
        result: Predictions and curves.
        ledger: Ledger of the extraction, for the cohort flow.
        job: The whole job's configuration, for the report; None = ``config`` is all of it.

    Returns:
        Name → path of what was written.
    """
    out, classes, options = config.out, data.cohort.classes, config.evaluation
    record = _record(config, data)
    names = [name for name in config.named_losses if name in set(result.predictions["loss"])]
    tables = {
        name: result.predictions[result.predictions["loss"] == name].drop(columns="loss") for name in names
    }
    evaluations = {
        name: evaluate_predictions(
            table, classes, resamples=options.resamples, seed=options.seed, order=config.order,
            validation=_validation(config.folder_of(name), table),
        )
        for name, table in tables.items()
    }  # fmt: skip
    headline = names[0]
    files = {"predictions": out / "predictions.csv", "metrics": out / "metrics.json"}
    write_table(tables[headline], files["predictions"])
    write_json(files["metrics"], _metrics(evaluations))
    comparisons: dict[str, PairedComparison] = {}
    if len(names) > 1:
        comparisons = _comparisons(tables, classes, options.resamples, options.seed)
        files["compare"] = out / "compare.csv"
        write_table(_rows(tables, classes, config.order), files["compare"])
        files["differences"] = out / "compare.json"
        write_json(files["differences"], compare_json(headline, comparisons, evaluations))
    extracted = read_ledger_table(ledger)
    fatal = [leak.detail for leak in data.leaks if leak.fatal]
    # Leaks that were trained on are those that were allowed.
    warnings = [*([LEAKING] if fatal else []), *data.warnings]
    warnings += [f"Run without result: {failed.reason}" for failed in result.failures]
    splits, cohort = data.slides
    without_attention = ""
    if data.source.level != "tile":
        without_attention = f"The features are one vector a {data.source.level}: there are no tiles to show."
    elif config.model.pools_evenly:
        without_attention = (
            f"{config.model.name} gives every tile the same weight: there is no attention to show."
        )
    report = ReportInput(
        title=config.name,
        predictions=result.predictions,
        evaluations=evaluations,
        curves=result.curves,
        ledger=extracted,
        flow=cohort_flow(
            used_slides=len(cohort.rows),
            used_patients=len(data.cohort.case_ids),
            ledger=extracted,
            unmatched=data.unmatched,
        ),
        splits=data.splits.meta,
        comparisons=comparisons,
        leaks=fatal,
        audit_remarks=[leak.detail for leak in data.leaks if not leak.fatal],
        compared=compared_slides(splits, cohort, data.evidence),
        audit_notes=data.evidence.notes,
        config={**relative_paths(job or {}), **record["config"]},
        provenance=record["provenance"],
        hashes={**data.hashes, "predictions.csv": sha256_file(files["predictions"])},
        warnings=warnings,
        pictures={}
        if without_attention
        else _pictures(tables[headline], evaluations[headline], data, result.folders[headline]),
        attention=config.model.reported_attention,
        without_attention=without_attention,
        features=record["features"],
    )
    return {**files, **write_outputs(report, out, options.figures), "splits": out / "splits.json"}


def _record(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    content = {
        "model": asdict(config.model),
        "losses": {name: asdict(loss) for name, loss in config.named_losses.items()},
        "training": asdict(config.training),
        "split": asdict(config.split),
        "splits_file": config.splits,
        "official_split": config.official_split,
        "evaluation": asdict(config.evaluation),
        "seeds": list(range(config.seeds)),
        "features": config.features,
        "further_features": list(config.further_features),
        "bag": config.bag,
        "labels": config.labels,
        "order": list(config.order),
        "allow_leak": config.allow_leak,
        **({"init": config.init} if config.init else {}),
    }
    return write_record(
        config.out / "run.json",
        config=content,
        headline=next(iter(config.named_losses)),
        losses=list(config.named_losses),
        classes=list(data.cohort.classes),
        features=data.origin,
        features_from_here=config.features and path_from(config.out, config.features),
        hashes=dict(data.hashes),
        leaks=[leak.detail for leak in data.leaks if leak.fatal],
    )


def compare_json(
    headline: str,
    comparisons: Mapping[str, PairedComparison],
    evaluations: Mapping[str, Evaluation],
) -> dict[str, Any]:
    """Paired differences in macro-F1, schema ``wsi-ncmi/compare/1``.

    Args:
        headline: Name of the run that the others are taken from.
        comparisons: Name of the other run → headline minus that run.
        evaluations: Name → evaluation, of all of them.

    Returns:
        ``schema, metric, headline``, ``macro_f1`` (name → ``{value, ci_low, …}``) and ``differences``, a list
        of ``{a, b, difference, ci_low, ci_high, t, p_value, wins, ties, losses, only_a, only_b,
        mcnemar_p}``.
    """
    return {
        "schema": COMPARE_SCHEMA,
        "metric": "macro_f1",
        "headline": headline,
        "macro_f1": {name: found.metrics["macro_f1"].to_json() for name, found in evaluations.items()},
        "differences": [
            {"a": headline, "b": other, **comparison.to_json()} for other, comparison in comparisons.items()
        ],
    }


def _pictures(
    table: pd.DataFrame, evaluation: Evaluation, data: TrainingData, folder: Path
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


def _rows(tables: Mapping[str, pd.DataFrame], classes: Sequence[str], order: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"loss": name, "fold": fold, "seed": seed, **metrics}
        for name, table in tables.items()
        for (seed, fold), metrics in fold_metrics(table, classes, order).items()
    ]
    return pd.DataFrame(rows)
