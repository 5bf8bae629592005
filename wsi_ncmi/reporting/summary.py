"""The report in a page of Markdown, to paste into a paper or a ticket."""

from pathlib import Path

from wsi_ncmi.core.files import write_text
from wsi_ncmi.reporting import tables
from wsi_ncmi.reporting.formatting import count, interval, number, without_folders
from wsi_ncmi.reporting.report_input import ReportInput
from wsi_ncmi.reporting.reporting_items import reporting_items


def render_summary(data: ReportInput) -> str:
    """Renders the summary.

    Args:
        data: What the report is made from.

    Returns:
        Markdown: headline, warnings, metrics of every loss, classes, centres, comparisons, and the reporting
        items that the run can fill.
    """
    evaluation = data.headline
    headline = evaluation.metrics["macro_f1"]
    bounds = interval(headline)
    name = f" ({_text(data.headline_name)})" if data.headline_name else ""
    lines = [
        f"# {_text(data.title)}",
        "",
        f"**Macro-F1{name}: {number(headline.value)}**" + (f" (95 % CI {bounds})" if bounds else "")
        + f", {count(evaluation.n_slides, 'slide')} of {count(evaluation.n_patients, 'patient')}, "
        f"{len(evaluation.classes)} classes, {count(evaluation.n_folds, 'fold')}, "
        f"{count(len(evaluation.seeds), 'seed')}.",
        f"Unweighted mean of F1 over all classes; test predictions pooled over folds, mean over seeds; "
        f"interval: "
        f"{count(evaluation.resamples, 'bootstrap resample')} of patients.",
        "",
    ]  # fmt: skip
    warnings = data.all_warnings()
    if warnings:
        lines += [*(f"> {_text(warning)}" + "  " for warning in warnings), ""]
    names = [_text(each) or "value" for each in data.evaluations]
    lines += ["| metric | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row in tables.metric_rows(data.evaluations):
        cells = [_cell(cell) for cell in row.cells]
        lines.append(f"| {row.words.name} | " + " | ".join(cells) + " |")
    lines += ["", "| class | slides | patients | F1 | precision | recall |", "|---|---|---|---|---|---|"]
    for group in tables.class_rows(evaluation):
        cells = [_cell(group.cells.get(metric)) for metric in ("f1", "precision", "recall")]
        lines.append(
            f"| {_text(group.name)} | {group.slides} | {group.patients} | " + " | ".join(cells) + " |"
        )
    lines += _spread(data)
    if evaluation.per_centre:
        lines += [
            "",
            "| centre | slides | patients | macro-F1 | balanced accuracy | accuracy |",
            "|---|---|---|---|---|---|",
        ]
        for group in tables.centre_rows(evaluation):
            names_of = ("macro_f1", "balanced_accuracy", "accuracy")
            cells = [_cell(group.cells.get(metric)) for metric in names_of]
            lines.append(
                f"| {_text(group.name)} | {group.slides} | {group.patients} | " + " | ".join(cells) + " |"
            )
    for other, pair in data.comparisons.items():
        p = f", p {number(pair.p_value)}" if pair.runs else ""
        lines += [
            "",
            f"Macro-F1 of {_text(data.headline_name) or 'this run'} minus {_text(other)}: "
            f"{number(pair.difference)} (95 % CI {number(pair.ci_low)} to {number(pair.ci_high)}{p}).",
        ]
    if data.flow:
        steps = [f"{step.slides} {_text(step.name)}" for step in data.flow]
        lines += ["", f"Cohort: {' → '.join(steps)}."]
    lines += ["", "## Reporting items", ""]
    lines += ["After TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378), filled from the run.", ""]
    lines += ["| item | topic | from this run |", "|---|---|---|"]
    lines += [
        f"| {item.number} | {item.topic} | {_text(str(without_folders(item.text)))} |"
        for item in reporting_items(data)
    ]
    software = (data.provenance or {}).get("software")
    if software:
        lines += ["", f"Made with {_text(str(software))}."]
    return "\n".join(lines) + "\n"


def write_summary(data: ReportInput, path: Path) -> None:
    """Renders the summary and writes it atomically."""
    write_text(path, render_summary(data))


def _spread(data: ReportInput) -> list[str]:
    told = []
    evaluation = data.headline
    for what, spreads in (("folds", evaluation.over_folds), ("seeds", evaluation.over_seeds)):
        found = spreads.get("macro_f1")
        if found is not None and found.n > 1:
            told.append(f"over {found.n} {what} mean {number(found.mean)}, SD {number(found.sd)}")
    return ["", f"Spread of macro-F1, apart from the interval: {'; '.join(told)}."] if told else []


def _cell(cell: tables.Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{cell.value} ({cell.interval})" if cell.interval else cell.value


def _text(text: str) -> str:
    """Text that can't break out of its table cell, nor become HTML where Markdown is rendered."""
    flat = " ".join(str(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
