"""Files of a report: page, summary, CSV tables, and figures as PNG and SVG."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.files import atomic_path, ensure_folder
from wsi_ncmi.core.leftovers import clean_folder
from wsi_ncmi.metrics import Estimate
from wsi_ncmi.reporting.figures import FigureGroups, report_figures
from wsi_ncmi.reporting.render import write_report
from wsi_ncmi.reporting.report_input import ReportInput
from wsi_ncmi.reporting.slides import all_slides
from wsi_ncmi.reporting.summary import write_summary

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_exports", "write_table", "write_outputs"]

Rows = list[dict[str, Any]]


def write_exports(
    data: ReportInput, groups: FigureGroups, folder: Path, formats: Sequence[str]
) -> dict[str, Path]:
    """Writes ``tables/*.csv`` and ``figures/*``.

    Args:
        data: What the report is made from.
        groups: Its figures.
        folder: Run folder.
        formats: ``png``, ``svg``; empty = no pictures.

    Returns:
        ``tables`` and, where any were drawn, ``figures``: the two folders.
    """
    import pandas as pd

    files = {"tables": ensure_folder(folder / "tables")}
    for name, rows in _tables(data).items():
        if rows:
            write_table(pd.DataFrame(rows), files["tables"] / f"{name}.csv")
    for figures in groups.values():
        for figure in figures:
            if points := _points(figure.traces, figure.layout):
                write_table(pd.DataFrame(points), files["tables"] / f"figure_{figure.key}.csv")
    if not formats:
        return files
    from wsi_ncmi.reporting.figures.static import draw_confusion, draw_figure

    files["figures"] = ensure_folder(folder / "figures")
    drawn = {figure.key: draw_figure(figure) for figures in groups.values() for figure in figures}
    drawn["confusion"] = draw_confusion(data.headline.classes, data.headline.confusion)
    for key, by_format in drawn.items():
        for kind in formats:
            with atomic_path(files["figures"] / f"{key}.{kind}") as temporary:
                temporary.write_bytes(by_format[kind])
    return files


def _tables(data: ReportInput) -> dict[str, Rows]:
    evaluations, headline = data.evaluations, data.headline
    per_loss = [(name, evaluation) for name, evaluation in evaluations.items()]
    return {
        "metrics": [
            {"loss": name, "metric": metric, **_numbers(found)}
            for name, evaluation in per_loss
            for metric, found in evaluation.metrics.items()
        ],
        "classes": [
            {
                "loss": name, "class": c, "slides": evaluation.support.get(c, 0),
                "patients": evaluation.patients_of.get(c, 0), "metric": metric, **_numbers(found),
            }
            for name, evaluation in per_loss
            for c, estimates in evaluation.per_class.items()
            for metric, found in estimates.items()
        ],
        "centres": [
            {
                "loss": name, "centre": centre, "slides": evaluation.centre_sizes[centre][0],
                "patients": evaluation.centre_sizes[centre][1], "metric": metric, **_numbers(found),
            }
            for name, evaluation in per_loss
            for centre, estimates in evaluation.per_centre.items()
            for metric, found in estimates.items()
        ],
        "spread": [
            {"loss": name, "metric": metric, "over": over, "mean": found.mean, "sd": found.sd, "n": found.n}
            for name, evaluation in per_loss
            for over, spreads in (("folds", evaluation.over_folds), ("seeds", evaluation.over_seeds))
            for metric, found in spreads.items()
        ],
        "confusion": [
            {"loss": name, "true": true, "predicted": predicted, "slides": evaluation.confusion[i, j]}
            for name, evaluation in per_loss
            for i, true in enumerate(evaluation.classes)
            for j, predicted in enumerate(evaluation.classes)
        ],
        "operating_points": [
            {"loss": name, "class": c, **point}
            for name, evaluation in per_loss
            for c, points in evaluation.operating_points.items()
            for point in points
        ],
        "abstention": [
            {"loss": name, **point}
            for name, evaluation in per_loss
            for point in evaluation.selective.get("points", ())
        ],
        "comparisons": [
            {"a": data.headline_name, "b": name, "metric": "macro_f1", **pair.to_json()}
            for name, pair in data.comparisons.items()
        ],
        "slides": [vars(row) for row in all_slides(data.predictions_of(data.headline_name), headline)],
        "cohort_flow": list(_flow(data)),
    }  # fmt: skip


def _numbers(found: Estimate) -> Mapping[str, Any]:
    return {"reason": "", **found.to_json()}


def _flow(data: ReportInput) -> Iterator[dict[str, Any]]:
    for step in data.flow:
        yield {"step": step.name, "slides": step.slides, "patients": step.patients, "left_out_because": ""}
        for reason, slides in step.lost.items():
            yield {"step": step.name, "slides": -slides, "patients": None, "left_out_because": reason}
    for k, fold in enumerate((data.splits or {}).get("counts", ())):
        for part in ("train", "validation", "test"):
            sizes = {"slides": fold[part]["slides"], "patients": fold[part]["patients"]}
            yield {"step": f"fold {k}, {part}", **sizes, "left_out_because": ""}


def _points(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> Rows:
    """What the lines and bands of a figure are drawn through, with the titles of its axes as columns."""
    rows: Rows = []
    for number, trace in enumerate(traces):
        if trace.get("hoverinfo") == "skip" and not trace.get("meta", {}).get("band"):
            continue  # the diagonal, and single runs behind their mean
        axis = layout[str(trace.get("yaxis", "y")).replace("y", "yaxis", 1)]
        kind = "band" if trace.get("meta", {}).get("band") else "line"
        for x, y in zip(trace["x"], trace["y"], strict=True):
            rows.append(
                {
                    "curve": number, "name": html.unescape(str(trace.get("name", ""))), "kind": kind,
                    "x": layout["xaxis"]["title"]["text"], "x_value": x,
                    "y": axis["title"]["text"], "y_value": y,
                }
            )  # fmt: skip
    return rows


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a CSV atomically, without index, lines ending in a newline everywhere."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_outputs(
    data: ReportInput, folder: Path, formats: Sequence[str] = ("png", "svg")
) -> dict[str, Path]:
    """Writes ``report.html``, ``summary.md``, ``tables/*.csv`` and ``figures/*``.

    Args:
        data: What they are made from.
        folder: Run folder; it exists.
        formats: Of the figures outside the page; empty = none.

    Returns:
        ``report``, ``summary``, ``tables`` and, where any were drawn, ``figures``.
    """
    for place in (folder, folder / "tables", folder / "figures"):
        clean_folder(place)
    figures = report_figures(
        data.predictions_of(data.headline_name), data.headline, data.curves, data.evaluations
    )
    files = {"report": folder / "report.html", "summary": folder / "summary.md"}
    write_report(data, files["report"], figures)
    write_summary(data, files["summary"])
    return {**files, **write_exports(data, figures, folder, formats)}
