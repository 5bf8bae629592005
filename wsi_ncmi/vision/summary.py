"""The results of an image-recognition job: one row a run, means and paired differences, a page of curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsi_ncmi.core.files import atomic_path, write_json, write_text
from wsi_ncmi.reporting import render_curves
from wsi_ncmi.reporting.figures.figure import Figure, axis, line
from wsi_ncmi.training import RUN_JSON
from wsi_ncmi.vision.config import ImageJobConfig
from wsi_ncmi.vision.trainer import read_run

_SCHEMA = "wsi-ncmi-images/1"
_HEADLINE = ("top1", "top5", "macro_f1", "cmi", "gamma", "ncmi", "top1_nearest", "top1_highest")
_COLUMNS = ("loss", "seed", "part", "epochs", *_HEADLINE, "train_loss", "images_per_s", "device")
_INFORMATION = ("ncmi", "cmi", "gamma")  # in nats; all other scores are shares
_SHOWN = {
    "top1": "Top-1", "top5": "Top-5", "macro_f1": "Macro-F1", "ncmi": "NCMI", "cmi": "CMI", "gamma": "Γ",
    "top1_nearest": "Top-1, nearest centroid",
}  # fmt: skip
_PANELS = {
    "top1": "Top-1", "top5": "Top-5", "macro_f1": "Macro-F1", "ncmi": "NCMI = CMI / Γ",
    "cmi": "Concentration CMI, nats", "gamma": "Separation Γ, nats",
}  # fmt: skip


def write_results(config: ImageJobConfig, runs: Sequence[tuple[str, int, Path]]) -> dict[str, Path]:
    """Writes ``runs.csv``, ``summary.json`` and ``curves.html`` of the finished runs.

    All scores are those of the last epoch. ``top1_highest`` is the highest over the epochs: chosen on the
    part that it is measured on, as many published tables do, and therefore too good.

    Args:
        config: The job.
        runs: Loss name, seed and folder of every run of the job.

    Returns:
        The files by name; empty when no run is finished.
    """
    rows: list[dict[str, Any]] = []
    curves: dict[tuple[str, int], pd.DataFrame] = {}
    forms: dict[str, Mapping[str, Any]] = {}
    for name, seed, folder in runs:
        if not (folder / RUN_JSON).is_file():
            continue
        _, run = read_run(folder)
        table = curves[name, seed] = pd.DataFrame(run.curves)
        more = {"top1_highest": table["top1"].max(), "images_per_s": table["images_per_s"].median()}
        rows.append(
            {**run.curves[-1], "loss": name, "seed": seed, "epochs": len(table), "device": run.device, **more}
        )
        if run.form:
            forms[name] = run.form
    if not rows:
        return {}
    files = {"runs": "runs.csv", "summary": "summary.json", "page": "curves.html"}
    paths = {name: config.out / file for name, file in files.items()}
    with atomic_path(paths["runs"]) as temporary:
        pd.DataFrame(rows)[list(_COLUMNS)].to_csv(temporary, index=False, lineterminator="\n")
    content = summarise_runs(rows, [name for name in config.losses if any(r["loss"] == name for r in rows)])
    write_json(paths["summary"], {"schema": _SCHEMA, "name": config.name, **content, "forms": forms})
    write_text(paths["page"], _page(config.name, curves, content))
    return paths


def summarise_runs(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and paired differences from the first loss.

    Args:
        rows: One a run: ``loss``, ``seed``, and the scores.
        names: The losses in order; the first is the reference.

    Returns:
        ``losses``: name → ``seeds`` and score → ``mean`` and ``sd`` (None for a single seed);
        ``differences``: name → score → ``mean``, ``low`` and ``high`` (95 % t interval over the seeds that
        both losses have; None for fewer than two).
    """
    from scipy.special import stdtrit  # the t distribution's quantile, without the load of scipy.stats

    table = pd.DataFrame(rows).set_index("seed")
    scores = {name: table[table["loss"] == name][list(_HEADLINE)] for name in names}
    losses: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for name in names:
        losses[name] = {"seeds": len(scores[name])}
        for score, mean, sd in _finite_means(scores[name]):
            losses[name][score] = {"mean": mean, "sd": sd}
        if name == names[0]:
            continue
        paired = (scores[name] - scores[names[0]].reindex(scores[name].index)).loc[
            scores[name].index.intersection(scores[names[0]].index)
        ]
        count = len(paired)
        differences[name] = {"seeds": count}
        for score, mean, sd in _finite_means(paired):
            half = None if sd is None else float(stdtrit(count - 1, 0.975)) * sd / math.sqrt(count)
            low, high = (None, None) if half is None else (mean - half, mean + half)
            differences[name][score] = {"mean": mean, "low": low, "high": high}
    return {"reference": names[0], "losses": losses, "differences": differences}


def _finite_means(table: pd.DataFrame) -> list[tuple[str, float, float | None]]:
    """Mean and standard deviation of every score that all runs have."""
    found: list[tuple[str, float, float | None]] = []
    for score in table.columns:
        values = table[score].to_numpy(dtype=np.float64)
        if len(values) and np.isfinite(values).all():
            found.append(
                (score, float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)
            )
    return found


def _cells(content: Mapping[str, Any], unit: str = "") -> pd.DataFrame:
    """Means with standard deviations, a loss a row; shares in per cent, information measures in nats."""

    def cell(name: str, score: Mapping[str, float] | None) -> str:
        if score is None:
            return ""
        factor, digits, behind = (1, 4, "") if name in _INFORMATION else (100, 2, unit)
        spread = "" if score["sd"] is None else f" ± {factor * score['sd']:.{digits}f}"
        return f"{factor * score['mean']:.{digits}f}{spread}{behind}"

    rows = {
        name: {"seeds": scores["seeds"], **{key: cell(key, scores.get(key)) for key in _SHOWN}}
        for name, scores in content["losses"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns="loss")


def text_table(content: Mapping[str, Any]) -> str:
    """The summary as lines of text: a loss a line, shares in per cent, then the paired differences."""
    lines = [_cells(content).to_string()]
    for name, found in content["differences"].items():
        if "top1" in found and found["top1"]["low"] is not None:
            mean, low, high = (100 * found["top1"][key] for key in ("mean", "low", "high"))
            lines.append(
                f"{name} − {content['reference']}: top-1 {mean:+.2f} points "
                f"(95 % interval over {found['seeds']} seeds {low:+.2f} to {high:+.2f})"
            )
    return "\n".join(lines)


def _page(title: str, curves: Mapping[tuple[str, int], pd.DataFrame], summary: Mapping[str, Any]) -> str:
    """One HTML file with a table and the curves; it loads nothing."""
    part = f"the {next(iter(curves.values()))['part'].iloc[0]} part"
    note = (
        f"Scores of the last epoch on {part}, mean ± standard deviation over seeds; the curves are means. "
        "NCMI, CMI and Γ (pairwise) are those of the class probabilities; at like accuracy a small "
        "NCMI is good; a network that can't decide has a small CMI too."
    )
    table = (
        _cells(summary, " %").replace("", "–").rename(columns={"seeds": "Seeds", **_SHOWN}).to_html(border=0)
    )
    return render_curves(title, table, note, _figures(curves, part))


def _figures(curves: Mapping[tuple[str, int], pd.DataFrame], part: str) -> list[Figure]:
    runs = [table.assign(loss=name) for (name, _), table in curves.items()]
    means = pd.concat(runs).groupby(["loss", "epoch"], sort=False)[list(_PANELS)]
    # A mean over all seeds or none.
    whole = means.mean().where(means.count().eq(means.size(), axis=0))
    names = list(dict.fromkeys(name for name, _ in curves))
    figures = []
    for score, title in _PANELS.items():
        found = {name: whole.loc[name][score].dropna() for name in names}
        told = [
            f"{name} {values.iloc[0]:.3g} to {values.iloc[-1]:.3g}"
            for name, values in found.items()
            if len(values)
        ]
        figures.append(
            Figure(
                score,
                title,
                f"On {part}, epoch by epoch.",
                f"{title} from the first to the last epoch: {'; '.join(told)}.",
                [
                    line(name, values.index.to_numpy(np.float64), values.to_numpy(), i)
                    for i, (name, values) in enumerate(found.items())
                ],
                {
                    "xaxis": axis("Epoch", rangemode="tozero"),
                    "yaxis": axis(title),
                    "legend": {"below": True},
                },
            )
        )
    return figures
