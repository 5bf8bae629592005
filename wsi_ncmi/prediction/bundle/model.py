"""A bundle in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.ensemble import Ensemble, SlidePrediction
from wsi_ncmi.prediction.reference import Reference

__all__ = ["ModelBundle"]


@dataclass(frozen=True, eq=False)  # models have no one truth value to compare by
class ModelBundle:
    """Trained models with everything that an answer about a new slide needs.

    Attributes:
        ensemble: The models: folds and seeds.
        calibration: Temperature and threshold.
        reference: Statistics of the training slides; None where the model comes without.
        summary: What is known of the training, JSON-ready.
        intended_use: What the model is for, a sentence or more.
        limits: What it is not for.
        digest: SHA-256 that changes with anything that changes an answer.
    """

    ensemble: Ensemble
    calibration: Calibration = field(default_factory=Calibration)
    reference: Reference | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = ""
    limits: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.ensemble.classes

    @property
    def features(self) -> Mapping[str, Any]:
        """What made the features that the models take."""
        return self.ensemble.features

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.ensemble.name

    @property
    def digest(self) -> str:
        """SHA-256 of weights, classes, calibration and bounds: equal digests give equal answers."""
        content = {
            "weights": [str(member.config["weights_sha256"]) for member in self.ensemble.members],
            "classes": list(self.classes),
            "features": dict(self.features),
            "calibration": self.calibration.to_json(),
            "reference": None if self.reference is None else self.reference.to_json(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def predict(
        self, features: NDArray[np.floating[Any]], coordinates: NDArray[np.integer[Any]] | None = None
    ) -> SlidePrediction:
        """Predicts one slide from its tile embeddings (N, D), with calibrated probabilities.

        ``coordinates`` are the tiles' places (N, 2), level-0 px; models with distance biases need them.

        Raises:
            InputError: Embeddings that the models don't take.
        """
        answer = self.ensemble.predict(features, coordinates)
        return replace(answer, probabilities=self.calibration.apply(answer.probabilities))
