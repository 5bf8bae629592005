"""One training of the study: from its plan to its line in the table."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from research.loss_study.plan import KEY, StudyRun, inner_folds
from research.loss_study.regimes import StudyParts, prepare_parts
from research.loss_study.settings import FLOOR
from wsi_ncmi.cohorts import Cohort, SplitConfig, Splits, make_splits, open_bag_source, read_any_splits
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses.ncmi import NCMILoss
from wsi_ncmi.metrics import information_metrics
from wsi_ncmi.metrics.classification import classification_metrics
from wsi_ncmi.mil import ModelConfig
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COLUMNS", "StudyCohort", "StudyWork", "open_study_cohort", "predicted_classes"]

# Class weights' exponent and ridge (pseudo-samples) of the decision that NCMI's default fits.
_DECISION = (0.75, 20.0)
_METRICS = ("macro_f1", "balanced_accuracy", "auroc_macro_ovr", "nll", "brier", "ece")
COLUMNS = (
    *KEY, *_METRICS, "macro_f1_calibrated", "macro_f1_balanced", "cmi", "gamma", "ncmi",
    "train_slides", "best_epoch", "cpu_seconds", "predicted",
)  # fmt: skip
"""Columns of the table. ``predicted``: class position of each test slide, in the fold's order, with as many
digits each as the last class needs;
``macro_f1_calibrated``: after refitting scale and class biases to the validation slides (ridge 1);
``macro_f1_balanced``: with the class weights and ridge of NCMI's default decision and, for a loss that has
them not, its class means too, so that a loss can be told from its decision (the first study's rows are from
before the class means)."""


@dataclass(frozen=True)
class StudyCohort:
    """A cohort as all runs see it: labels, outer folds, inner folds."""

    cohort: Cohort
    outer: Splits
    inner: Splits


def open_study_cohort(place: str) -> StudyCohort:
    """Labels and folds of a packed file.

    Args:
        place: ``FEATURES.npz``: five folds by patient. ``FEATURES.npz,SPLITS.csv``: the folds of a published
            table. ``FEATURES.npz,SITES.csv`` with the columns ``slide_id,source_site``: three folds whose
            test sites are in no other part.

    Raises:
        InputError: The file carries no labels, or a table is none of these.
    """
    features, _, table = place.partition(",")
    cohort = open_bag_source(Path(features)).embedded_cohort()
    if cohort is None:
        raise InputError(f"{features} must carry labels for the study.")
    if not table:
        outer = make_splits(cohort, SplitConfig())
        return StudyCohort(cohort, outer, inner_folds(cohort, outer))
    sites = pd.read_csv(table, dtype=str)
    if "source_site" not in sites.columns:
        outer = read_any_splits(Path(table), cohort)
        return StudyCohort(cohort, outer, inner_folds(cohort, outer))
    site = dict(zip(sites["slide_id"], sites["source_site"], strict=True))
    rows = tuple(replace(row, centre=site[row.slide_id]) for row in cohort.rows)
    by_site = Cohort(rows, cohort.classes)
    outer = make_splits(by_site, SplitConfig(folds=3, group="centre"))
    # Without an outer fold's sites one class of TCGA-OT has two left.
    inside = SplitConfig(folds=2, seed=1, group="centre")
    return StudyCohort(by_site, outer, inner_folds(by_site, outer, inside))


def predicted_classes(digits: str, slides: int, classes: int) -> NDArray[np.int64]:
    """Class positions (slides,) of the table's column ``predicted``.

    Raises:
        InputError: They are of another number of slides.
    """
    width = len(str(classes - 1))
    if len(digits) != width * slides:
        raise InputError(
            f"{len(digits)} digits are no classes of {slides} slides; the study was made with other features."
        )
    return np.array([int(digits[i : i + width]) for i in range(0, len(digits), width)], dtype=np.int64)


class StudyWork:
    """Does runs in a process; bags are read once.

    Args:
        places: Cohort name → packed file, and perhaps a table (see :func:`open_study_cohort`).
        model: Aggregator.
        training: Settings shared by all runs; rate, decay and epochs come from the run.
    """

    def __init__(self, places: Mapping[str, str], model: ModelConfig, training: TrainingConfig) -> None:
        self._model, self._training = model, training
        self._cohorts = {name: open_study_cohort(place) for name, place in places.items()}
        files = {name: Path(place.partition(",")[0]) for name, place in places.items()}
        budget = training.cache_mib * 2**20 // len(files)
        self._caches = {name: BagCache(open_bag_source(path), budget) for name, path in files.items()}

    def __call__(self, run: StudyRun, tell: Callable[[Any], None]) -> dict[str, Any]:
        """Trains and scores; returns the line of the table."""
        began = time.process_time()
        data, cache = self._cohorts[run.cohort], self._caches[run.cohort]
        splits = data.outer if run.stage == "confirm" else data.inner
        # The draw differs between folds and seeds, never between losses.
        parts = prepare_parts(data.cohort, splits.folds[run.fold], run.regime, 1000 * run.seed + run.fold)
        classes = data.cohort.classes
        if run.setting.loss == FLOOR:
            p, others = _floor(cache, parts, len(classes)), {}
        else:
            p, others = self._trained(run, parts, cache, len(classes))
        predicted = p.argmax(axis=1)
        truth = parts.test.y
        values = classification_metrics(
            [classes[i] for i in truth], p, [classes[i] for i in predicted], classes
        )
        return {
            **dict(zip(KEY, run.key, strict=True)),
            **{name: f"{values[name]:.6f}" for name in _METRICS},
            **{name: f"{value:.6f}" for name, value in information_metrics(p, truth).items()},
            "macro_f1_calibrated": "",
            "macro_f1_balanced": "",
            "best_epoch": 0,
            **others,
            "train_slides": len(parts.train.slide_ids),
            "cpu_seconds": f"{time.process_time() - began:.2f}",
            "predicted": "".join(f"{i:0{len(str(len(classes) - 1))}d}" for i in predicted),
        }

    def _trained(
        self, run: StudyRun, parts: StudyParts, cache: BagCache, classes: int
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Probabilities of the test slides, and the columns that only a trained model has."""
        import torch

        training = replace(
            self._training, epochs=max(1, round(run.regime.epochs * self._training.epochs / 20)),
            learning_rate=run.setting.learning_rate, weight_decay=run.setting.weight_decay,
            sampler=run.setting.sampler,
        )  # fmt: skip
        config = RunConfig(
            model=run.setting.model or self._model, loss=run.setting.options, training=training,
            seed=run.seed,
        )  # fmt: skip
        fitted = fit_in_memory(cache, parts.train, parts.validation, classes, config)
        device = torch.device("cpu")
        z, z_validation = (
            embed(fitted.aggregator, cache, part.slide_ids, device) for part in (parts.test, parts.validation)
        )
        p = probabilities_of(fitted.criterion, z)
        means = None
        if not (isinstance(fitted.criterion, NCMILoss) and fitted.criterion.form.class_mean_decision):
            z_train = embed(fitted.aggregator, cache, parts.train.slide_ids, device)
            means = (z_validation, z_train, torch.from_numpy(parts.train.y), z)
        scored = (probabilities_of(fitted.criterion, z_validation), parts.validation.y, p, parts.test.y)
        return p, {
            "macro_f1_calibrated": f"{_refitted(*scored, 0.0, 1.0):.6f}",
            "macro_f1_balanced": f"{_refitted(*scored, *_DECISION, means):.6f}",
            "best_epoch": fitted.best_epoch,
        }


def _floor(cache: BagCache, parts: StudyParts, classes: int) -> NDArray[np.float64]:
    """Logistic regression on mean tiles; strength and class weights are validation's choice."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, validation, test = (
        np.stack([cache.bag(slide_id).float().mean(0).numpy() for slide_id in part.slide_ids])
        for part in (parts.train, parts.validation, parts.test)
    )
    fits = [
        make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, class_weight=weight, max_iter=2000)
        ).fit(train, parts.train.y)
        for strength in (1e-3, 1e-2, 1e-1, 1.0)
        for weight in (None, "balanced")
    ]
    best = max(fits, key=lambda fit: f1_and_recall(parts.validation.y, fit.predict(validation), classes)[0])
    p = np.zeros((len(test), classes))
    p[:, best.classes_] = best.predict_proba(test)
    return p


def _refitted(
    p_validation: NDArray[np.float64],
    y_validation: NDArray[np.int64],
    p: NDArray[np.float64],
    truth: NDArray[np.int64],
    balance: float,
    ridge: float,
    means: "tuple[Tensor, Tensor, Tensor, Tensor] | None" = None,
) -> float:
    # means: embeddings of validation and training, the training's labels, embeddings of the test.
    import torch

    from wsi_ncmi.losses.decision import CalibratedDecision, ClassMeanDecision
    from wsi_ncmi.losses.functional import safe_log

    y = torch.from_numpy(y_validation)
    decision = CalibratedDecision(p.shape[1], 1.0, ridge).double()
    # Probabilities that underflowed to 0 say no more than the smallest one that a float can hold.
    scores = [-safe_log(torch.from_numpy(part)).clamp(min=-80.0) for part in (p_validation, p)]
    decision.fit(scores[0], y, balance)
    decided = decision(scores[1])
    if means is not None:
        z_validation, z_train, y_train, z = means
        correction = ClassMeanDecision(p.shape[1], z.shape[1])
        correction.fit(decision(scores[0]), z_validation, y, z_train, y_train, balance)
        decided = correction(decided, z)
    return f1_and_recall(truth, decided.argmax(dim=1).numpy(), p.shape[1])[0]
