"""From the study's tables to the choice of settings and the statistics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.loss_study.settings import ABLATIONS, GRIDS, REFERENCES, Setting
from research.loss_study.statistics import Cells, compare_with_rivals
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, write_json

__all__ = ["best_settings", "choose_settings", "chosen_settings", "read_stage", "write_tables"]

_RUN = ["cohort", "regime", "fold", "seed"]
_MEASURES = (
    "macro_f1", "balanced_accuracy", "auroc_macro_ovr", "nll", "brier", "ece",
    "macro_f1_calibrated", "macro_f1_balanced", "cmi", "gamma", "ncmi", "cpu_seconds",
)  # fmt: skip


def read_stage(out: Path, stage: str) -> pd.DataFrame:
    """The table of a stage.

    Raises:
        InputError: The stage has no run yet.
    """
    path = out / f"{stage}.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist; run the stage {stage!r} first.")
    table = pd.read_csv(path, dtype={"predicted": str})
    if table.empty:
        raise InputError(f"{path} holds no run; run the stage {stage!r} first.")
    return table


def choose_settings(out: Path) -> Path:
    """Picks each loss's setting: the highest macro-F1, averaged over all cohorts and regimes alike.

    Only ``tune.csv`` is read, and of it the settings that were run everywhere: those of the last round. All
    losses must have equally many.

    Returns:
        ``chosen.json``: loss → setting, with the mean of every setting.

    Raises:
        InputError: A loss has fewer settings with all runs than another.
    """
    table = read_stage(out, "tune")
    counts = table.groupby(["loss", "setting"])[_RUN].apply(lambda part: len(part.drop_duplicates()))
    whole = counts[counts == counts.max()].index
    by_loss = whole.get_level_values("loss").value_counts().reindex(table["loss"].unique(), fill_value=0)
    if by_loss.nunique() > 1:
        raise InputError(
            f"{by_loss.idxmin()} has fewer settings with all runs than others; finish the stage 'tune' first."
        )
    table = table[table.set_index(["loss", "setting"]).index.isin(whole)]
    cells = table.groupby(["loss", "setting", "cohort", "regime"])["macro_f1"].mean()
    means = cells.groupby(["loss", "setting"]).mean()
    chosen: dict[str, Any] = {}
    for name, of_loss in means.groupby(level="loss"):
        ranked = of_loss.droplevel("loss").sort_values(ascending=False, kind="stable")
        chosen[str(name)] = {"setting": str(ranked.index[0]), "macro_f1": ranked.to_dict()}
    path = out / "chosen.json"
    write_json(path, chosen)
    return path


def best_settings(out: Path, cohort: str, count: int) -> set[tuple[str, str]]:
    """The ``count`` settings (loss, setting) of each loss with the highest macro-F1 on a cohort in ``tune``.

    Raises:
        InputError: The cohort has no runs, or a loss has fewer settings there than another.
    """
    table = read_stage(out, "tune")
    means = table[table["cohort"] == cohort].groupby(["loss", "setting"])["macro_f1"].mean()
    run = means.groupby(level="loss").size()
    if run.empty or run.nunique() > 1:
        raise InputError(f"Not every loss has all its settings on {cohort!r}; finish the first round there.")
    best = means.sort_values(ascending=False, kind="stable").groupby(level="loss").head(count)
    return {(str(loss), str(setting)) for loss, setting in best.index}


def chosen_settings(out: Path, rivals: int | None = None) -> list[Setting]:
    """The chosen setting of each loss, in the grid's order.

    Args:
        out: Folder of the study.
        rivals: Leave out all rivals but cross-entropy and this many with the highest mean, and add the
            references; None = all stay.

    Raises:
        InputError: Nothing was chosen yet, or the grid has changed since.
    """
    path = out / "chosen.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; run the stages 'tune' and 'choose' first.")
    chosen = json.loads(path.read_text(encoding="utf-8"))
    if rivals is not None:
        always = {"ncmi", "ce", *ABLATIONS}
        order = sorted(set(chosen) - always, key=lambda loss: -max(chosen[loss]["macro_f1"].values()))
        chosen = {loss: of for loss, of in chosen.items() if loss in always or loss in order[:rivals]}
    known = {(s.loss, s.name): s for grid in GRIDS.values() for of_loss in grid.values() for s in of_loss}
    place = {loss: at for at, loss in enumerate(GRIDS["long_tail"])}
    wanted = [
        (loss, chosen[loss]["setting"]) for loss in sorted(chosen, key=lambda loss: place.get(loss, -1))
    ]
    found = [known[key] for key in wanted if key in known]
    if len(found) != len(chosen):
        raise InputError(f"{path} names settings that the grid no longer has; choose again.")
    return found if rivals is None else [*found, *REFERENCES]


def write_tables(out: Path, cohorts: Mapping[str, str], stage: str = "confirm") -> dict[str, Path]:
    """Writes ``summary.csv`` (a row a loss, cohort and regime) and, for ``confirm``, ``statistics.json``.

    Args:
        out: Folder of the study.
        cohorts: Name → packed features, for the labels and patients of the test slides.
        stage: Stage of the table.
    """
    from research.loss_study.run import open_study_cohort

    table = read_stage(out, stage)
    missing = set(table["cohort"]) - set(cohorts)
    if missing:
        raise InputError(f"The study has the cohort {sorted(missing)[0]!r}; name its features too.")
    cells = Cells(table, {name: open_study_cohort(path) for name, path in cohorts.items()}, stage)
    means = table.groupby(["loss", "setting", "cohort", "regime"])[list(_MEASURES)].mean().reset_index()
    means = means.rename(
        columns={"macro_f1": "macro_f1_fold_mean", "balanced_accuracy": "balanced_fold_mean"}
    )
    means.insert(
        4,
        "macro_f1",
        [cells.macro_f1(*key) for key in means[["loss", "setting", "cohort", "regime"]].to_numpy()],
    )
    means["runs"] = table.groupby(["loss", "setting", "cohort", "regime"]).size().to_numpy()
    files = {"summary": out / f"{stage}_summary.csv"}
    with atomic_path(files["summary"]) as temporary:
        means.round(6).to_csv(temporary, index=False, lineterminator="\n")
    if stage == "confirm":
        files["statistics"] = out / "statistics.json"
        write_json(files["statistics"], compare_with_rivals(cells, np.random.default_rng(0)))
    return files
