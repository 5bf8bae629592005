"""The results of an image-recognition job: one row a run, means and paired differences, the curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ncmi.core.files import atomic_path, write_json, write_text
from wsi_ncmi.workflows.images.config import ImageJobConfig
from wsi_ncmi.workflows.images.page import curves_page

__all__ = ["HEADLINE", "text_table", "write_results"]

HEADLINE = ("top1", "top5", "macro_f1", "cmi", "gamma", "ncmi", "top1_nearest", "top1_highest")
_COLUMNS = ("loss", "seed", "part", "epochs", *HEADLINE, "train_loss", "images_per_s", "device")
_SCHEMA = "wsi-ncmi-images/1"


def write_results(config: ImageJobConfig, runs: Sequence[tuple[str, int, Path]]) -> Mapping[str, Path]:
    """Writes ``runs.csv``, ``summary.json`` and ``curves.html`` of the runs that are finished.

    All scores are those of the last epoch. ``top1_highest`` is the highest over the epochs: chosen on the
    part that it is measured on, as many published tables do, and therefore too good.

    Args:
        config: The job.
        runs: Loss name, seed and folder of every run of the job.

    Returns:
        The files by name; empty when no run is finished.
    """
    from wsi_ncmi.vision.records import RUN_JSON, read_finished

    rows: list[dict[str, Any]] = []
    curves: dict[tuple[str, int], Sequence[Mapping[str, Any]]] = {}
    forms: dict[str, Mapping[str, Any]] = {}
    for name, seed, folder in runs:
        if not (folder / RUN_JSON).is_file():
            continue
        _, run = read_finished(folder)
        last = run.curves[-1]
        highest = max(row["top1"] for row in run.curves if row["top1"] == row["top1"])
        speed = float(np.median([row["images_per_s"] for row in run.curves]))
        row = {**last, "loss": name, "seed": seed, "epochs": run.epochs, "top1_highest": highest}
        rows.append({**row, "images_per_s": speed, "device": run.device})
        curves[name, seed] = run.curves
        if run.form:
            forms[name] = run.form
    if not rows:
        return {}
    table, summary, page = (config.out / name for name in ("runs.csv", "summary.json", "curves.html"))
    with atomic_path(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, _COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if v != v else v for k, v in row.items()})
    content = summarise(rows, [name for name in config.losses if any(r["loss"] == name for r in rows)])
    write_json(summary, {"schema": _SCHEMA, "name": config.name, **content, "forms": forms})
    write_text(page, curves_page(config.name, curves, content))
    return {"runs": table, "summary": summary, "page": page}


def summarise(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and paired differences from the first loss.

    Args:
        rows: One a run: ``loss``, ``seed``, and the scores of ``HEADLINE``.
        names: The losses in order; the first is the reference.

    Returns:
        ``losses``: name → ``seeds`` and score → ``mean`` and ``sd`` (None for a single seed);
        ``differences``: name → score → ``mean``, ``low`` and ``high`` (95 % t interval over the seeds that
        both losses have; None for fewer than two).
    """
    scores = {name: {int(row["seed"]): row for row in rows if row["loss"] == name} for name in names}
    losses: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for name in names:
        losses[name] = {"seeds": len(scores[name])}
        for score in HEADLINE:
            values = np.array([float(row[score]) for row in scores[name].values()])
            if np.isfinite(values).all():
                spread = float(values.std(ddof=1)) if len(values) > 1 else None
                losses[name][score] = {"mean": float(values.mean()), "sd": spread}
        if name != names[0]:
            differences[name] = _differences(scores[names[0]], scores[name])
    return {"reference": names[0], "losses": losses, "differences": differences}


def _differences(reference: Mapping[int, Any], other: Mapping[int, Any]) -> dict[str, Any]:
    from scipy.stats import t

    seeds = sorted(set(reference) & set(other))
    found: dict[str, Any] = {"seeds": len(seeds)}
    for score in HEADLINE:
        values = np.array([float(other[s][score]) - float(reference[s][score]) for s in seeds])
        if not len(values) or not np.isfinite(values).all():
            continue
        mean, half = float(values.mean()), math.nan
        if len(values) > 1:
            half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        low, high = (None, None) if half != half else (mean - half, mean + half)
        found[score] = {"mean": mean, "low": low, "high": high}
    return found


def text_table(content: Mapping[str, Any]) -> str:
    """The summary as lines of text: a loss a line, scores in per cent but the information measures."""
    columns = ("top1", "top5", "macro_f1", "ncmi", "cmi", "gamma", "top1_nearest")
    lines = [f"{'loss':<20} seeds " + " ".join(f"{name:>15}" for name in columns)]
    for name, scores in content["losses"].items():
        cells = [_cell(scores.get(column), column) for column in columns]
        lines.append(f"{name:<20} {scores['seeds']:>5} " + " ".join(f"{cell:>15}" for cell in cells))
    for name, found in content["differences"].items():
        if "top1" in found and found["top1"]["low"] is not None:
            mean, low, high = (100 * found["top1"][key] for key in ("mean", "low", "high"))
            lines.append(
                f"{name} − {content['reference']}: top-1 {mean:+.2f} points "
                f"(95 % interval over {found['seeds']} seeds {low:+.2f} to {high:+.2f})"
            )
    return "\n".join(lines)


def _cell(score: Mapping[str, float] | None, column: str) -> str:
    if score is None:
        return ""
    if column in ("ncmi", "cmi", "gamma"):
        return f"{score['mean']:.4f}" + ("" if score["sd"] is None else f" ± {score['sd']:.4f}")
    return f"{100 * score['mean']:.2f}" + ("" if score["sd"] is None else f" ± {100 * score['sd']:.2f}")
