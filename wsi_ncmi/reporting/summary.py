"""The report in a page of Markdown, to paste into a paper or a ticket, with the reporting items of TRIPOD+AI.

The items (Collins et al. 2024, BMJ 385:e078378; topics in ``reporting_items.yaml``) are filled from the run.

What a run can't know (setting, dates, ethics, funding, interpretation) is left to the authors by name, not
left out, so that nobody takes the list for complete.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from wsi_ncmi.core.files import write_text
from wsi_ncmi.metrics import Evaluation
from wsi_ncmi.reporting import tables
from wsi_ncmi.reporting.formatting import (
    confidence_interval,
    count,
    number,
    percent,
    with_interval,
    without_folders,
)
from wsi_ncmi.reporting.report_input import ReportInput


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
    bounds = confidence_interval(headline)
    name = f" ({_text(data.headline_name)})" if data.headline_name else ""
    lines = [
        f"# {_text(data.title)}",
        "",
        f"**Macro-F1{name}: {number(headline.value)}**" + (f" ({bounds})" if bounds else "")
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
        told = (
            [f"95 % CI {number(pair.ci_low)} to {number(pair.ci_high)}"] if pair.ci_low == pair.ci_low else []
        )
        told += [f"p {number(pair.p_value)}"] if pair.p_value == pair.p_value else []
        brackets = f" ({', '.join(told)})" if told else ", the same in every resample"
        lines += [
            "",
            f"Macro-F1 of {_text(data.headline_name) or 'this run'} minus {_text(other)}: "
            f"{number(pair.difference)}{brackets}.",
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


AUTHORS = "for the authors"
"""Text of an item that no run can fill."""


@dataclass(frozen=True)
class ReportingItem:
    """One item.

    Attributes:
        number: Of the TRIPOD+AI checklist.
        topic: What it asks for.
        text: What the run says to it, or ``AUTHORS``.
    """

    number: str
    topic: str
    text: str


def reporting_items(data: ReportInput) -> list[ReportingItem]:
    """The items in the checklist's order; those that nothing is known of say so."""
    topics = yaml.safe_load(
        (resources.files("wsi_ncmi.reporting") / "reporting_items.yaml").read_text("utf-8")
    )
    known = {**_about_data(data), **_about_methods(data), **_about_results(data)}
    return [ReportingItem(n, topic, known.get(n) or AUTHORS) for n, topic in topics.items()]


def _about_data(data: ReportInput) -> dict[str, str]:
    evaluation = data.headline
    sizes = (
        f"{count(evaluation.n_slides, 'slide')} of {count(evaluation.n_patients, 'patient')}, "
        f"{len(evaluation.classes)} classes"
    )
    patients = count(evaluation.n_patients, "patient")
    smallest = count(min(evaluation.patients_of.values(), default=0), "patient")
    return {
        "1": f"{data.title}: classification of slides, {sizes}",
        "5a": f"{sizes}. {_hashes(data)}".strip(),
        "6a": _centres(evaluation),
        "6b": _left_out(data),
        "7": _preparation(data),
        "8a–c": f"Class of the slide: {', '.join(evaluation.classes)}; how it was assessed: {AUTHORS}",
        "9a–c": _predictors(data),
        "10": f"{patients}, {smallest} in the smallest class; justification: {AUTHORS}",
        "11": "Slides without usable tiles or label are left out, nothing is imputed" if data.flow else "",
        "20a": " → ".join(f"{step.slides:,} {step.name}" for step in data.flow),
        "20b": _shares(evaluation),
    }


def _about_methods(data: ReportInput) -> dict[str, str]:
    evaluation = data.headline
    others = [row.words.name for row in tables.metric_rows(data.evaluations) if row.key != "macro_f1"]
    resamples = count(evaluation.resamples, "bootstrap resample")
    temperature = tables.recalibration_source(evaluation)
    sampler = (data.config or {}).get("training", {}).get("sampler", "")
    chosen = tables.thresholds_chosen_on(evaluation)
    return {
        "12a": _partition(data),
        "12c": _model(data),
        "12d": "Metrics by centre, with intervals" if evaluation.per_centre else "",
        "12e": "Headline: macro-F1 over all classes of the task (a class that is never found counts as 0); "
        f"95 % percentile and BCa intervals from {resamples} of patients. Beside it: {'; '.join(others)}",
        "12f": f"Examined, not applied to the metrics: {temperature}" if temperature else "None",
        "12g": _predictions(evaluation),
        "13": _shares(evaluation) + (f". Sampling of training slides: {sampler}" if sampler else ""),
        "14": f"Centres only, where known (23b); age, sex and descent: {AUTHORS}",
        "15": "A probability for each class and one predicted class"
        + (f"; operating points with thresholds chosen on {chosen}" if chosen else ""),
        "16": _audit(data),
        "18e": _hashes(data),
        "18f": str((data.provenance or {}).get("software", "")),
    }


def _about_results(data: ReportInput) -> dict[str, str]:
    evaluation = data.headline
    return {
        "21": _parts(data),
        "22": "model.safetensors and model.json of every fold and seed" if _has_model(data) else "",
        "23a": f"Macro-F1 {with_interval(evaluation.metrics['macro_f1'])}; tables above",
        "23b": "; ".join(
            f"{name}: accuracy {with_interval(found['accuracy'])}"
            for name, found in evaluation.per_centre.items()
        ),
        "24": "; ".join(f"{r.name} {r.before} → {r.after}" for r in tables.recalibration_rows(evaluation)),
        "26": " ".join([*data.all_warnings(), f"Others: {AUTHORS}"]),
    }


def _shares(evaluation: Evaluation) -> str:
    return "; ".join(
        f"{name}: {count(evaluation.support[name], 'slide')} of "
        f"{count(evaluation.patients_of[name], 'patient')}"
        for name in evaluation.classes
    )


def _has_model(data: ReportInput) -> bool:
    return bool((data.config or {}).get("model"))


def _centres(evaluation: Evaluation) -> str:
    if not evaluation.centre_sizes:
        return ""
    told = "; ".join(
        f"{name}: {count(slides, 'slide')} of {count(patients, 'patient')}"
        for name, (slides, patients) in evaluation.centre_sizes.items()
    )
    return f"{count(len(evaluation.centre_sizes), 'centre')} ({told}); setting: {AUTHORS}"


def _left_out(data: ReportInput) -> str:
    reasons = [f"{n:,} slides: {reason}" for step in data.flow for reason, n in step.lost.items()]
    if not data.flow:
        return ""
    return f"Left out: {'; '.join(reasons) if reasons else 'none'}. Criteria: {AUTHORS}"


def _preparation(data: ReportInput) -> str:
    found = dict(data.features)
    if not found:
        return ""
    tiles = f"tiles of {found.get('tile_px')} px at {found.get('mpp_target')} µm/px"
    parts = [
        tiles, f"overlap {found.get('overlap_px')} px", f"tissue by {found.get('tissue_method', 'unknown')}",
        f"artefacts: {found.get('artifacts_rule', 'keep')}", f"stain: {found.get('stain', 'none')}",
    ]  # fmt: skip
    return ", ".join(parts)


def _predictors(data: ReportInput) -> str:
    name = data.features.get("encoder")
    weights = str(data.features.get("encoder_weights_sha256") or "")
    told = f" (weights SHA-256 {weights[:12]}…)" if weights not in ("", "none") else ""
    return f"Tile embeddings of the frozen encoder {name}{told}" if name else ""


def _partition(data: ReportInput) -> str:
    meta = data.splits or {}
    if not meta:
        return ""
    options = meta.get("options") or {}
    group = {"case_id": "patient", "centre": "centre", "slide_id": "slide"}.get(options.get("group", ""), "")
    said = [str(meta.get("kind", "split")), f"{count(len(meta.get('counts', ())), 'fold')}"]
    if group:
        said.append(f"grouped by {group}")
    if options.get("stratify"):
        said.append(f"stratified by {' and '.join(options['stratify'])}")
    if options.get("validation"):
        said.append(f"{percent(options['validation'])} of the training {group or 'unit'}s for validation")
    return ", ".join(said)


def _model(data: ReportInput) -> str:
    if not _has_model(data):
        return ""
    config: Mapping[str, Any] = data.config or {}
    training = config.get("training", {})
    seeds = count(len(data.headline.seeds), "seed")
    return (
        f"Aggregator {config['model'].get('name')}, loss {data.headline_name}, AdamW, "
        f"{training.get('epochs')} epochs, rate {training.get('learning_rate')}, weight decay "
        f"{training.get('weight_decay')}; kept epoch: best {training.get('selection')} on the validation "
        f"part; {seeds}; all settings in run.json"
    )


def _predictions(evaluation: Evaluation) -> str:
    if evaluation.n_folds > 1:
        return "Each slide by the models of the fold that tested it; pooled over folds, mean over seeds"
    return "The test part by the models of its fold; metrics averaged over seeds"


def _audit(data: ReportInput) -> str:
    if data.leaks is None:
        return ""
    compared = ", ".join(f"{what} ({n:,} slides)" for what, n in data.compared.items() if n)
    by = f"Leak audit by {compared or 'slide and patient'}: "
    found = [str(without_folders(str(leak))) for leak in data.leaks]
    return by + (" ".join(found[:3]) + (" …" if len(found) > 3 else "") if found else "no leak found")


def _parts(data: ReportInput) -> str:
    rows = tables.part_rows(data)
    told = [
        f"{name}: " + ", ".join(
            f"{part} {slides:,} slides of {patients:,} patients"
            for part, (slides, patients) in zip(("training", "validation", "test"), parts, strict=True)
        )
        for name, parts in rows[:3]
    ]  # fmt: skip
    return "; ".join(told) + (" …" if len(rows) > 3 else "")


def _hashes(data: ReportInput) -> str:
    told = ", ".join(f"{name} {value[:12]}…" for name, value in data.hashes.items())
    return f"SHA-256: {told}" if told else ""
