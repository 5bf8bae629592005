"""Temperature from few validation slides: does it ever worsen the test, and is what is shown borne out?

    python benchmarks/calibration.py predict WORK --cohort rcc --model lr [--data FOLDER]
    python benchmarks/calibration.py score WORK OUT.csv
    python benchmarks/calibration.py table OUT.csv

The protocol is in docs/explanation/calibration.md. ``predict`` deals patients into thirds, trains on each and
keeps the probabilities of all slides; cohorts are ``rcc`` and ``nsclc`` (packed bags below ``--data``) and
``synthetic`` (bags drawn here, for regression alone).
``score`` draws validation slides and judges the rules; ``table`` prints the result as Markdown.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_ncmi.cohorts import BagSource, Cohort, CohortRow, open_bag_source
from wsi_ncmi.losses import loss_config
from wsi_ncmi.metrics.calibration import apply_temperature, nll_terms, proven_temperature
from wsi_ncmi.metrics.staging import SLIDE_LABELS
from wsi_ncmi.prediction.calibration import supported
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.fitting import labelled_part
from wsi_ncmi.training.scoring import embed, probabilities_of

STRENGTHS = {"lr-unsure": 0.001, "lr": 0.1, "lr-sure": 10.0}
LOSSES = {"abmil-ce": "ce", "abmil-ncmi": "ncmi"}
SIZES = (10, 30, 100)
DEALING = 1  # 0 was the first round's, as draws 0–99 were
DRAWS = range(100, 200)
THIRDS = 3
Floats = NDArray[np.float64]
Rule = Callable[[NDArray[np.int64], Floats, NDArray[np.str_]], float]


class DrawnBags:
    """Bags like CAMELYON-17's: five slides a patient, tumour in a small share of the tiles."""

    def __init__(self, patients: int = 180) -> None:
        rng = np.random.default_rng(17)
        self.bags: dict[str, Floats] = {}
        rows = []
        for i in range(5 * patients):
            label = int(rng.choice(4, p=[0.646, 0.07, 0.114, 0.17]))
            tumour = rng.random(200) < rng.gamma(2.0, (0.0, 0.005, 0.025, 0.15)[label])
            tiles = rng.normal(size=(200, 16)) + 0.5 * rng.normal(size=16)
            self.bags[f"s{i:03d}"] = tiles + 1.5 * tumour[:, None]
            rows.append(CohortRow(f"s{i:03d}", f"p{i // 5:03d}", SLIDE_LABELS[label]))
        self.cohort = Cohort(tuple(rows), SLIDE_LABELS)

    def load(self, slide_id: str) -> Floats:
        """The tiles of a slide."""
        return self.bags[slide_id]


def read_cohort(name: str, data: Path) -> tuple[BagSource | DrawnBags, Cohort]:
    """Bags and labels of a cohort."""
    if name == "synthetic":
        drawn = DrawnBags()
        return drawn, drawn.cohort
    source = open_bag_source(data / "tcga_bags" / f"tcga_{name}.npz")
    cohort = source.embedded_cohort(None)
    assert cohort is not None
    return source, cohort


def predict(name: str, model: str, work: Path, data: Path) -> None:
    """Writes ``WORK/<cohort>_<model>.csv``: the probabilities of each third's model for the other slides."""
    source, cohort = read_cohort(name, data)
    ids = np.asarray(cohort.slide_ids)
    truth = np.asarray([cohort.class_index[row.label] for row in cohort.rows])
    patients = np.asarray([row.case_id for row in cohort.rows])
    dealt = np.random.default_rng(DEALING).permutation(np.unique(patients))
    third = pd.Series(np.arange(len(dealt)) % THIRDS, index=dealt)[patients].to_numpy()
    for key in STRENGTHS if model == "lr" else LOSSES if model == "abmil" else (model,):
        tables = []
        for k in range(THIRDS):
            training, others = third == k, third != k
            if key in STRENGTHS:
                p = _regression(source, ids, truth, training, others, STRENGTHS[key])
            else:
                assert not isinstance(source, DrawnBags)
                p = _abmil(source, cohort, ids, patients, training, others, LOSSES[key])
            table = pd.DataFrame(p, columns=[f"p_{i}" for i in range(p.shape[1])])
            about = {"trained": k, "third": third[others], "slide_id": ids[others]}
            tables.append(table.assign(case_id=patients[others], truth=truth[others], **about))
        pd.concat(tables).to_csv(work / f"{name}_{key}.csv", index=False)


def _regression(
    source: BagSource | DrawnBags,
    ids: NDArray[np.str_],
    truth: NDArray[np.int64],
    training: NDArray[np.bool_],
    others: NDArray[np.bool_],
    strength: float,
) -> Floats:
    bags = [np.asarray(source.load(str(i)), dtype=np.float32) for i in ids]
    x = np.stack([np.concatenate([bag.mean(axis=0), bag.max(axis=0)]) for bag in bags])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    return np.asarray(model.fit(x[training], truth[training]).predict_proba(x[others]), dtype=np.float64)


def _abmil(
    source: BagSource,
    cohort: Cohort,
    ids: NDArray[np.str_],
    patients: NDArray[np.str_],
    training: NDArray[np.bool_],
    others: NDArray[np.bool_],
    loss: str,
) -> Floats:
    held = np.isin(patients, np.unique(patients[training])[::5])
    train = labelled_part("training", tuple(ids[training & ~held].tolist()), cohort)
    validation = labelled_part("validation", tuple(ids[training & held].tolist()), cohort)
    config = RunConfig(
        loss=loss_config(name=loss), training=TrainingConfig(epochs=10, batch_size=16, device="cpu")
    )
    cache = BagCache(source, 2**30)
    fitted = fit_in_memory(cache, train, validation, len(cohort.classes), config)
    z = embed(fitted.aggregator, cache, tuple(ids[others].tolist()), torch.device("cpu"))
    return probabilities_of(fitted.criterion, z)


def earlier_temperature(truth: NDArray[np.int64], p: Floats, patients: NDArray[np.str_]) -> float:
    """The rule of 0.1.0: the likeliest between 0.05 and 20, if it gained anything on other fifths."""

    def fit(y: NDArray[np.int64], q: Floats) -> float:
        def loss(x: float) -> float:
            return float(nll_terms(y, apply_temperature(q, float(np.exp(x)))).mean())

        bounds = (np.log(0.05), np.log(20.0))
        return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))

    group = np.unique(patients, return_inverse=True)[1] % 5
    gain = 0.0
    for inside in (group == k for k in np.unique(group)):
        softened = apply_temperature(p[inside], fit(truth[~inside], p[~inside]))
        gain += float((nll_terms(truth[inside], p[inside]) - nll_terms(truth[inside], softened)).sum())
    return fit(truth, p) if gain > 0 else 1.0


RULES: dict[str, Rule] = {"0.1.0": earlier_temperature, "shipped": proven_temperature}


def _standard_error(terms: Floats, patients: NDArray[np.str_]) -> float:
    """Standard error of the mean over slides, patients being what was drawn."""
    names, patient = np.unique(patients, return_inverse=True)
    sums = np.bincount(patient, weights=terms - terms.mean())
    return float(np.sqrt((sums**2).sum() * len(names) / (len(names) - 1)) / len(terms))


def score(work: Path, out: Path) -> None:
    """Writes a row for each cohort, model, third, size, rule and draw."""
    rows = []
    for file in sorted(work.glob("*_*.csv")):
        table = pd.read_csv(file, dtype={"slide_id": str, "case_id": str})
        cohort, model = file.stem.split("_")
        columns = [name for name in table.columns if name.startswith("p_")]
        for k in range(THIRDS):
            of_model = table[table["trained"] == k]
            pool = of_model[of_model["third"] == (k + 1) % THIRDS]
            test = of_model[of_model["third"] == (k + 2) % THIRDS]
            y, p = test["truth"].to_numpy(), test[columns].to_numpy()
            who = test["case_id"].to_numpy(dtype=str)
            before = nll_terms(y, p)
            plain, right = _standard_error(before, who), p.argmax(axis=1) == y
            for name, rule in RULES.items():
                for size in SIZES:
                    for draw in DRAWS:
                        chosen = np.random.default_rng([size, draw]).permutation(len(pool))[:size]
                        known = pool.iloc[chosen]
                        q, of = known[columns].to_numpy(), known["case_id"].to_numpy(dtype=str)
                        temperature = rule(known["truth"].to_numpy(), q, of)
                        calibrated = apply_temperature(p, temperature)
                        change = nll_terms(y, calibrated) - before
                        sure = apply_temperature(q, temperature).max(axis=1)
                        called, wrong = q.argmax(axis=1), q.argmax(axis=1) != known["truth"].to_numpy()
                        bounds = [
                            supported(of[called == i], sure[called == i], wrong[called == i])
                            for i in range(len(columns))
                        ]
                        bound = np.asarray(bounds)[p.argmax(axis=1)]
                        beyond = calibrated.max(axis=1) > bound
                        rows.append(
                            {
                                "cohort": cohort, "model": model, "third": k, "slides": size, "rule": name,
                                "draw": draw, "errors": int(wrong.sum()),
                                "temperature": temperature, "nll": before.mean(), "nll_se": plain,
                                "change": change.mean(), "change_se": _standard_error(change, who),
                                "p_max": calibrated.max(), "beyond": int(beyond.sum()),
                                "right_beyond": int(right[beyond].sum()), "bound": float(bound[beyond].sum()),
                            }
                        )  # fmt: skip
    pd.DataFrame(rows).to_csv(out, index=False, float_format="%.6g")


def markdown(path: Path) -> str:
    """The table of docs/explanation/calibration.md."""
    lines = [
        "| cohort, model (NLL) | slides | T kept | T | mean change of NLL | worst, in SE | "
        "draws worse by > 1 SE | 0.1.0: mean, worst, draws | right beyond the bound (bound) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    frame = pd.read_csv(path, dtype={"rule": str}).assign(ratio=lambda rows: rows["change"] / rows["nll_se"])
    for (cohort, model, size), part in frame.groupby(["cohort", "model", "slides"]):
        earlier, shipped = (part[part["rule"] == name] for name in RULES)
        of_thirds = shipped.groupby("third")[["change", "change_se"]].mean()
        error = float(np.sqrt((of_thirds["change_se"] ** 2).sum()) / THIRDS)
        t, right, bound = shipped["temperature"], shipped["right_beyond"].sum(), shipped["bound"].sum()
        beyond = max(int(shipped["beyond"].sum()), 1)
        lines.append(
            f"| {cohort}, {model} ({part['nll'].mean():.3f}) | {size} | {(t != 1).mean():.0%} | "
            f"{t.min():.2f}–{t.max():.2f} | {shipped['change'].mean():+.4f} ± {error:.4f} | "
            f"{shipped['ratio'].max():+.2f} | {(shipped['ratio'] > 1).sum()} | "
            f"{earlier['change'].mean():+.3f}, {earlier['ratio'].max():+.1f}, "
            f"{(earlier['ratio'] > 1).sum()} | {right / beyond:.3f} ({bound / beyond:.3f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Does what the first argument says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="what", required=True)
    predictor = parts.add_parser("predict")
    predictor.add_argument("work", type=Path)
    predictor.add_argument("--cohort", choices=("rcc", "nsclc", "synthetic"), required=True)
    predictor.add_argument("--model", choices=("lr", "abmil", *LOSSES), required=True)
    predictor.add_argument("--data", type=Path, default=Path("../shared/data"))
    scorer = parts.add_parser("score")
    scorer.add_argument("work", type=Path)
    scorer.add_argument("out", type=Path)
    parts.add_parser("table").add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "predict":
        predict(arguments.cohort, arguments.model, arguments.work, arguments.data)
    elif arguments.what == "score":
        score(arguments.work, arguments.out)
    else:
        print(markdown(arguments.out))


if __name__ == "__main__":
    main()
