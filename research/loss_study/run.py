"""One training of the study: from its plan to its line in the table."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.loss_study.plan import KEY, StudyRun, inner_folds
from research.loss_study.regimes import prepare_parts
from wsi_ncmi.cohorts import Cohort, SplitConfig, Splits, make_splits, open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import information_metrics
from wsi_ncmi.metrics.classification import classification_metrics
from wsi_ncmi.mil import ModelConfig
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

__all__ = ["COLUMNS", "StudyCohort", "StudyWork", "open_study_cohort"]

# Class weights' exponent and ridge (pseudo-samples) of the decision that NCMI's default fits.
_DECISION = (0.75, 20.0)
_METRICS = ("macro_f1", "balanced_accuracy", "auroc_macro_ovr", "nll", "brier", "ece")
COLUMNS = (
    *KEY, *_METRICS, "macro_f1_calibrated", "macro_f1_balanced", "cmi", "gamma", "ncmi",
    "train_slides", "best_epoch", "cpu_seconds", "predicted",
)  # fmt: skip
"""Columns of the table. ``predicted``: class position of each test slide, a digit each, in the fold's order;
``macro_f1_calibrated`` and ``_balanced``: after refitting scale and class biases to the validation slides, as
they are (ridge 1) and with the class weights and ridge of NCMI's default decision, so that a loss can be told
from its decision."""


@dataclass(frozen=True)
class StudyCohort:
    """A cohort as all runs see it: labels, outer folds, inner folds."""

    cohort: Cohort
    outer: Splits
    inner: Splits


def open_study_cohort(path: Path) -> StudyCohort:
    """Labels and folds of a packed file.

    Raises:
        InputError: The file carries no labels, or more classes than a digit can tell apart.
    """
    cohort = open_bag_source(path).embedded_cohort()
    if cohort is None or len(cohort.classes) > 10:
        raise InputError(f"{path} must carry the labels of 2 to 10 classes for the study.")
    outer = make_splits(cohort, SplitConfig())
    return StudyCohort(cohort, outer, inner_folds(cohort, outer))


class StudyWork:
    """Does runs in a process; bags are read once.

    Args:
        paths: Cohort name → packed file.
        model: Aggregator.
        training: Settings shared by all runs; rate, decay and epochs come from the run.
    """

    def __init__(self, paths: Mapping[str, Path], model: ModelConfig, training: TrainingConfig) -> None:
        self._model, self._training = model, training
        self._cohorts = {name: open_study_cohort(path) for name, path in paths.items()}
        budget = training.cache_mib * 2**20 // len(paths)
        self._caches = {name: BagCache(open_bag_source(path), budget) for name, path in paths.items()}

    def __call__(self, run: StudyRun, tell: Callable[[Any], None]) -> dict[str, Any]:
        """Trains and scores; returns the line of the table."""
        import torch

        began = time.process_time()
        data, cache = self._cohorts[run.cohort], self._caches[run.cohort]
        splits = data.outer if run.stage == "confirm" else data.inner
        # The draw differs between folds and seeds, never between losses.
        parts = prepare_parts(data.cohort, splits.folds[run.fold], run.regime, 1000 * run.seed + run.fold)
        epochs = max(1, round(run.regime.epochs * self._training.epochs / 20))
        training = replace(
            self._training, epochs=epochs, learning_rate=run.setting.learning_rate,
            weight_decay=run.setting.weight_decay, sampler=run.setting.sampler,
        )  # fmt: skip
        classes = data.cohort.classes
        fitted = fit_in_memory(
            cache,
            parts.train,
            parts.validation,
            len(classes),
            RunConfig(model=self._model, loss=run.setting.options, training=training, seed=run.seed),
        )
        device = torch.device("cpu")
        z = embed(fitted.aggregator, cache, parts.test.slide_ids, device)
        z_validation = embed(fitted.aggregator, cache, parts.validation.slide_ids, device)
        p = probabilities_of(fitted.criterion, z)
        p_validation = probabilities_of(fitted.criterion, z_validation)
        predicted = p.argmax(axis=1)
        truth = parts.test.y
        values = classification_metrics(
            [classes[i] for i in truth], p, [classes[i] for i in predicted], classes
        )
        return {
            **dict(zip(KEY, run.key, strict=True)),
            **{name: f"{values[name]:.6f}" for name in _METRICS},
            "macro_f1_calibrated": f"{_refitted(p_validation, parts.validation.y, p, truth, 0.0, 1.0):.6f}",
            "macro_f1_balanced": f"{_refitted(p_validation, parts.validation.y, p, truth, *_DECISION):.6f}",
            **{name: f"{value:.6f}" for name, value in information_metrics(p, truth).items()},
            "train_slides": len(parts.train.slide_ids),
            "best_epoch": fitted.best_epoch,
            "cpu_seconds": f"{time.process_time() - began:.2f}",
            "predicted": "".join(map(str, predicted.tolist())),
        }


def _refitted(
    p_validation: NDArray[np.float64],
    y_validation: NDArray[np.int64],
    p: NDArray[np.float64],
    truth: NDArray[np.int64],
    balance: float,
    ridge: float,
) -> float:
    import torch

    from wsi_ncmi.losses.decision import CalibratedDecision
    from wsi_ncmi.losses.functional import safe_log

    decision = CalibratedDecision(p.shape[1], 1.0, ridge).double()
    # Probabilities that underflowed to 0 say no more than the smallest one that a float can hold.
    scores = [-safe_log(torch.from_numpy(part)).clamp(min=-80.0) for part in (p_validation, p)]
    decision.fit(scores[0], torch.from_numpy(y_validation), balance)
    decided = decision(scores[1]).argmax(dim=1).numpy()
    return f1_and_recall(truth, decided, p.shape[1])[0]
