"""From the report's input to one HTML file that needs nothing else."""

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment

from wsi_ncmi.core.files import write_text
from wsi_ncmi.core.pages import page_environment
from wsi_ncmi.metrics import Estimate, Evaluation
from wsi_ncmi.metrics.evaluation import MIN_PATIENTS_PER_GROUP
from wsi_ncmi.reporting import formatting, tables
from wsi_ncmi.reporting.figures import Figure, FigureGroups, report_figures
from wsi_ncmi.reporting.formatting import without_folders
from wsi_ncmi.reporting.report_input import ReportInput
from wsi_ncmi.reporting.slides import best_and_worst
from wsi_ncmi.reporting.tables import confusion_tables, stage_table


@cache
def _environment() -> Environment:
    environment = page_environment("wsi_ncmi.reporting")
    environment.filters |= {
        "number": formatting.number,
        "percent": formatting.percent,
        "probability": formatting.probability,
        "count": formatting.count,
    }
    return environment


def _source(name: str) -> str:
    source, _, _ = _environment().loader.get_source(_environment(), name)  # type: ignore[union-attr]
    return source


def render_report(data: ReportInput, figures: FigureGroups | None = None) -> str:
    """Renders the report.

    Args:
        data: What it is made from; sections without content are left out.
        figures: Its figures, where they were made already.

    Returns:
        One HTML document with styles, scripts and figures inside: it opens from disk, loads nothing, and its
        content-security policy forbids it to.
    """
    evaluation = data.headline
    predictions = data.predictions_of(data.headline_name)
    if figures is None:
        figures = report_figures(predictions, evaluation, data.curves, data.evaluations)
    worst, best, n_wrong = best_and_worst(predictions, evaluation, ledger=data.ledger)
    beside = tables.headline_companions(evaluation)
    page = _environment().get_template("report.html.j2")
    return page.render(
        ncmi_evidence=formatting.NCMI_EVIDENCE if {"ncmi", "ce"} <= set(data.evaluations) else "",
        data=data,
        evaluation=evaluation,
        headline=tables.cell(evaluation.metrics["macro_f1"]),
        headline_interval=formatting.confidence_interval(evaluation.metrics["macro_f1"]),
        headline_bca=formatting.interval(_bca(evaluation.metrics["macro_f1"])),
        spread=tables.spread_rows(evaluation),
        operating=tables.operating_rows(evaluation),
        thresholds_chosen_on=tables.thresholds_chosen_on(evaluation),
        abstention=tables.abstention_rows(evaluation),
        recalibration=tables.recalibration_rows(evaluation),
        recalibration_source=tables.recalibration_source(evaluation),
        stages=stage_table(evaluation),
        stage_kappa=_staged(evaluation, "kappa_quadratic"),
        stage_accuracy=_staged(evaluation, "accuracy"),
        attention_meaning=data.attention,
        features=[
            (key.replace("_", " "), str(value)) for key, value in without_folders(data.features).items()
        ],
        folds=evaluation.over_folds.get("macro_f1"),
        seeds=evaluation.over_seeds.get("macro_f1"),
        beside=[(formatting.words_of(name), tables.cell(evaluation.metrics[name])) for name in beside],
        warnings=data.all_warnings(),
        metric_rows=tables.metric_rows(data.evaluations),
        class_rows=tables.class_rows(evaluation),
        confusion=confusion_tables(data.evaluations),
        few_patients=MIN_PATIENTS_PER_GROUP,
        centre_rows=tables.centre_rows(evaluation),
        part_rows=tables.part_rows(data),
        leaks=None if data.leaks is None else [without_folders(str(leak)) for leak in data.leaks],
        remarks=[without_folders(str(remark)) for remark in data.audit_remarks],
        ledger=_ledger_rows(data),
        figures=figures,
        worst=worst,
        best=best,
        n_wrong=n_wrong,
        config=_yaml(data.config),
        provenance=_facts(data.provenance),
        packages=dict((data.provenance or {}).get("packages") or {}),
        style=_source("style.css"),
        script=_source("report.js"),
        figures_json=_figures_json([figure for group in figures.values() for figure in group]),
    )


def render_curves(title: str, table: str, note: str, figures: Sequence[Figure]) -> str:
    """Renders a page of curves below a table, in the style of the report.

    Args:
        title: Its title.
        table: The table as HTML.
        note: What the numbers are.
        figures: The figures.

    Returns:
        One HTML document that loads nothing.
    """
    return (
        _environment()
        .get_template("curves.html.j2")
        .render(
            title=title,
            table=table,
            note=note,
            figures=figures,
            style=_source("style.css"),
            script=_source("report.js"),
            figures_json=_figures_json(figures),
        )
    )


def write_report(data: ReportInput, path: Path, figures: FigureGroups | None = None) -> None:
    """Renders the report and writes it atomically."""
    write_text(path, render_report(data, figures))


def _bca(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value, estimate.bca_low, estimate.bca_high)


def _staged(evaluation: Evaluation, metric: str) -> tables.Cell | None:
    if evaluation.staging is None:
        return None
    found = evaluation.staging[metric]
    # As in metrics.json, where undefined numbers are null.
    value, low, high = (
        math.nan if found[key] is None else found[key] for key in ("value", "ci_low", "ci_high")
    )
    return tables.cell(Estimate(value, low, high, found.get("reason", "")))


def _figures_json(figures: Sequence[Figure]) -> str:
    content = [{"key": figure.key, "data": figure.traces, "layout": figure.layout} for figure in figures]
    text = json.dumps(content, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    # Inside a script element only "<" can end it (or open a comment).
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _yaml(config: Any) -> str:
    if not config:
        return ""
    return str(yaml.safe_dump(without_folders(_simple(config)), sort_keys=False, allow_unicode=True))


def _simple(value: Any) -> Any:
    """Only what YAML knows; a path or an enum becomes its text."""
    if isinstance(value, dict):
        return {str(key): _simple(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_simple(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _facts(provenance: Any) -> list[tuple[str, str]]:
    words = {
        "software": "Software",
        "python": "Python",
        "platform": "Platform",
        "cpu": "CPU",
        "cpu_count": "CPU cores usable",
        "memory_gib": "Memory (GiB)",
        "gpus": "GPUs",
        "cuda": "CUDA",
        "device": "Device",
        "verb": "Command",
        "utc": "Finished (UTC)",
    }
    found = dict(without_folders(provenance or {}))
    known = [(label, str(found[key])) for key, label in words.items() if found.get(key) not in (None, "")]
    others = [
        (key.replace("_", " "), str(value))
        for key, value in found.items()
        if key not in words and key != "packages" and isinstance(value, str | int | float)
    ]
    return known + others


def _ledger_rows(data: ReportInput) -> list[tuple[str, str, str]]:
    """Slides of the ledger that failed or have something to say: id, status, reason."""
    if data.ledger is None or data.ledger.empty:
        return []
    told = data.ledger[(data.ledger["status"] == "failed") | (data.ledger.get("tiles", 1) == 0)]
    return [
        (str(row["slide_id"]), str(row["status"]), str(without_folders(str(row["reason"]))))
        for _, row in told.iterrows()
    ]
