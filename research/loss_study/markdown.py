"""The tables of docs/explanation/ncmi.md from the study's folder, as Markdown.

python -m research.loss_study.markdown confirm FOLDER     # after `study tables`
python -m research.loss_study.markdown settings FOLDER    # what inner validation chose
python -m research.loss_study.markdown inner FOLDER STAGE # sensitivity or ablation
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

REGIMES = ("full", "imbalanced", "noise_20", "patients_10", "patients_25")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _short(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def confirm(folder: Path) -> str:
    """Macro-F1 by regime and cohort, all measures over the cells, and the differences with intervals."""
    summary = pd.read_csv(folder / "confirm_summary.csv")
    found = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    cohorts = sorted(summary["cohort"].unique(), reverse=True)
    cells = summary.pivot_table(index="loss", columns=["regime", "cohort"], values="macro_f1")
    order = sorted(cells.index, key=lambda loss: -cells.loc[loss].mean())
    regimes = [regime for regime in REGIMES if regime in summary["regime"].to_numpy()]
    by_cell = _table(
        ["loss", *(f"{regime} {' / '.join(cohorts)}" for regime in regimes), "mean", "mean of folds"],
        (
            [
                f"`{loss}`",
                *(" / ".join(_short(cells.loc[loss, (r, c)]) for c in cohorts) for r in regimes),
                _short(cells.loc[loss].mean()),
                _short(summary[summary["loss"] == loss]["macro_f1_fold_mean"].mean()),
            ]
            for loss in order
        ),
    )
    measures = {
        "balanced accuracy": "balanced_fold_mean", "AUC": "auroc_macro_ovr", "NLL": "nll", "Brier": "brier",
        "ECE": "ece", "macro-F1, NCMI's decision": "macro_f1_balanced", "NCMI": "ncmi",
    }  # fmt: skip
    means = summary.groupby("loss")[list(measures.values())].mean()
    others = _table(
        ["loss", *measures],
        ([f"`{loss}`", *(_short(means.loc[loss, m]) for m in measures.values())] for loss in order),
    )
    differences = _table(
        ["NCMI against", "all cells", *regimes, "wins / ties / losses", "corrected t, p", "Wilcoxon p"],
        (_difference(rival, found["differences"][rival], regimes) for rival in order if rival != "ncmi"),
    )
    return "\n\n".join([f"Strongest rival: `{found['strongest_rival']}`.", by_cell, others, differences])


def _difference(rival: str, found: dict, regimes: Sequence[str]) -> list[str]:
    def interval(of: dict) -> str:
        return f"{100 * of['value']:+.1f} ({100 * of['ci_low']:+.1f} to {100 * of['ci_high']:+.1f})"

    runs = found["runs"]
    return [
        f"`{rival}`",
        interval(found["mean"]),
        *(interval(found["by_regime"][regime]) for regime in regimes),
        f"{runs['wins']} / {runs['ties']} / {runs['losses']}",
        f"{runs['corrected_t']:.2f}, {runs['corrected_p']:.2g}",
        f"{runs['wilcoxon_p']:.1g}",
    ]


def settings(folder: Path) -> str:
    """The chosen setting of each loss and the range of its six means."""
    chosen = json.loads((folder / "chosen.json").read_text(encoding="utf-8"))
    order = sorted(chosen, key=lambda loss: -max(chosen[loss]["macro_f1"].values()))
    return _table(
        ["loss", "chosen setting", "inner macro-F1", "its other settings"],
        (
            [
                f"`{loss}`",
                chosen[loss]["setting"],
                _short(max(chosen[loss]["macro_f1"].values())),
                " ".join(_short(value) for value in sorted(chosen[loss]["macro_f1"].values())[-2::-1]),
            ]
            for loss in order
        ),
    )


def inner(folder: Path, stage: str) -> str:
    """Means over cohorts and folds of a stage that scores on inner folds."""
    rows = pd.read_csv(folder / f"{stage}.csv", dtype={"predicted": str})
    order = list(dict.fromkeys(rows["setting"]))
    cells = rows.pivot_table(index="setting", columns="regime", values="macro_f1")
    auc = rows.groupby("setting")["auroc_macro_ovr"].mean()
    regimes = [regime for regime in REGIMES if regime in cells.columns]
    return _table(
        ["form", *regimes, "mean", "AUC"],
        (
            [
                name, *(_short(cells.loc[name, r]) for r in regimes), _short(cells.loc[name].mean()),
                _short(auc[name]),
            ]
            for name in order
        ),
    )  # fmt: skip


def main() -> None:
    """Prints what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("confirm", "settings", "inner"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage", nargs="?", default="ablation")
    given = parser.parse_args()
    if given.what == "inner":
        print(inner(given.folder, given.stage))
    else:
        print({"confirm": confirm, "settings": settings}[given.what](given.folder))


if __name__ == "__main__":
    main()
