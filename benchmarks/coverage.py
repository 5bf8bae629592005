"""Coverage of 95 % intervals: percentile and BCa, drawing patients.

    python benchmarks/coverage.py [--cohorts 2000] [--resamples 1000] [--json]

Cohorts are drawn from a population whose macro-F1 is known: classes as on CAMELYON-17's slides (negative 323,
itc 35, micro 57, macro 85), a model of given confusion, and patients that are easy or hard for it, so that
the slides of one patient err together. Each cohort gets both intervals of its macro-F1; counted is how many
hold the population's. ``300x1``: 300 patients with a slide each; ``40x5``: CAMELYON-17's test centres, 40
patients with five slides. Also measured: thread CPU seconds of 10,000 resamples of 1,000 patients, alone and
with everything else that an evaluation computes.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.metrics.confusion import confusion_metrics
from wsi_ncmi.metrics.resampling import bca_interval, draw_multiplicities, leave_one_out, percentile_interval

CLASSES = np.array([323, 35, 57, 85]) / 500
# P(predicted | true) of an easy and of a hard patient: single cells are missed most, as in the challenge.
EASY = np.array(
    [[0.97, 0.01, 0.01, 0.01], [0.45, 0.40, 0.12, 0.03], [0.10, 0.08, 0.74, 0.08], [0.02, 0.01, 0.07, 0.90]]
)
HARD = np.array(
    [[0.80, 0.08, 0.08, 0.04], [0.70, 0.15, 0.10, 0.05], [0.30, 0.15, 0.45, 0.10], [0.10, 0.05, 0.20, 0.65]]
)
SHARE_HARD = 0.3
DESIGNS = {"300x1": (300, 1), "40x5": (40, 5)}


def population_macro_f1() -> float:
    """Macro-F1 of infinitely many patients."""
    matrix = CLASSES[:, None] * (SHARE_HARD * HARD + (1 - SHARE_HARD) * EASY)
    return float(confusion_metrics(matrix)["macro_f1"])


def draw_cohort(patients: int, slides: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Confusion cells of each patient, (patients, 16)."""
    truth = rng.choice(4, size=(patients, slides), p=CLASSES)
    hard = rng.random(patients) < SHARE_HARD
    rows = np.where(hard[:, None, None], HARD[truth], EASY[truth])
    predicted = (rng.random((patients, slides, 1)) > rows.cumsum(axis=2)[..., :-1]).sum(axis=2)
    cells = np.zeros((patients, 16))
    np.add.at(cells, (np.repeat(np.arange(patients), slides), (truth * 4 + predicted).ravel()), 1.0)
    return cells


def macro_f1(weights: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1 of weighted patients, (resamples,)."""
    return confusion_metrics((weights @ cells).reshape(-1, 4, 4))["macro_f1"]


def coverage(patients: int, slides: int, cohorts: int, resamples: int) -> dict[str, float]:
    """Shares of cohorts whose intervals hold the population's macro-F1, and the intervals' mean widths."""
    truth, rng = population_macro_f1(), np.random.default_rng(patients)
    left_out = leave_one_out(patients)
    intervals = np.empty((cohorts, 2, 2))
    values = np.empty(cohorts)
    for i in range(cohorts):
        cells = draw_cohort(patients, slides, rng)
        draws = np.concatenate(list(draw_multiplicities(patients, resamples, seed=i)))
        drawn = macro_f1(draws, cells)
        values[i] = macro_f1(np.ones((1, patients)), cells)[0]
        intervals[i, 0] = percentile_interval(drawn)[:2]
        intervals[i, 1] = bca_interval(drawn, float(values[i]), macro_f1(left_out, cells))
    held = (intervals[..., 0] <= truth) & (truth <= intervals[..., 1])
    width = intervals[..., 1] - intervals[..., 0]
    return {
        "percentile": float(held[:, 0].mean()),
        "bca": float(held[:, 1].mean()),
        "percentile_above": float((intervals[:, 0, 0] > truth).mean()),
        "percentile_below": float((intervals[:, 0, 1] < truth).mean()),
        "bca_above": float((intervals[:, 1, 0] > truth).mean()),
        "bca_below": float((intervals[:, 1, 1] < truth).mean()),
        "percentile_width": float(width[:, 0].mean()),
        "bca_width": float(width[:, 1].mean()),
        "bias": float(values.mean() - truth),
    }


def seconds_of_ten_thousand() -> float:
    """Thread CPU seconds of 10,000 resamples of 1,000 patients with all confusion-matrix metrics."""
    cells = draw_cohort(1000, 1, np.random.default_rng(0))
    began = time.thread_time()
    for weights in draw_multiplicities(1000, 10_000, 0):
        confusion_metrics((weights @ cells).reshape(-1, 4, 4))
    return time.thread_time() - began


def seconds_of_an_evaluation() -> float:
    """Thread CPU seconds of everything that ``metrics.json`` holds, 1,000 patients with 10,000 resamples."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 1000)
    names = ("a", "b", "c", "d")
    frame = pd.DataFrame({"slide_id": [f"s{i}" for i in range(1000)], "fold": np.arange(1000) % 5, "seed": 0})
    frame["case_id"] = frame["slide_id"]
    frame["label"] = [names[k] for k in rng.choice(4, size=1000, p=CLASSES)]
    frame["prediction"] = [names[k] for k in p.argmax(axis=1)]
    frame = frame.assign(**{f"p_{name}": p[:, k] for k, name in enumerate(names)})
    began = time.thread_time()
    evaluate_predictions(frame, names, resamples=10_000)
    return time.thread_time() - began


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, object] = {
        "cohorts": arguments.cohorts,
        "resamples": arguments.resamples,
        "population_macro_f1": population_macro_f1(),
        "seconds_10000_resamples_1000_patients": seconds_of_ten_thousand(),
        "seconds_whole_evaluation": seconds_of_an_evaluation(),
    }
    for name, (patients, slides) in DESIGNS.items():
        found[name] = coverage(patients, slides, arguments.cohorts, arguments.resamples)
        if not arguments.json:
            print(name, {key: round(value, 4) for key, value in found[name].items()})  # type: ignore[attr-defined]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
