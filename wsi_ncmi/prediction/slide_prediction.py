"""The prediction for one slide: class, confidence, decision or abstention, OOD flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.ensemble import EnsembleOutput
from wsi_ncmi.prediction.ood import OodFlag, SlideProperties

ABSTAIN = "abstain"
"""The decision where no prediction should be used without a person looking at the slide."""

_NEW = ("model", "shown")  # fields that 0.1.0 didn't write

NO_TILES = "no tissue: there is nothing to predict from"


def below(confidence: float, threshold: float) -> str:
    """Why there is no decision, with as many digits as tell the two numbers apart."""
    digits = next((n for n in range(3, 17) if f"{confidence:.{n}f}" != f"{threshold:.{n}f}"), 17)
    return f"its largest probability {confidence:.{digits}f} is below {threshold:.{digits}f}"


@dataclass(frozen=True)
class SlidePrediction:
    """The prediction for a slide.

    Attributes:
        slide_id: The slide.
        prediction: The most probable class; empty where nothing could be predicted.
        decision: That class, ``abstain``, or empty where nothing could be predicted.
        probabilities: Class → calibrated probability; empty where nothing could be predicted.
        confidence: The largest of them.
        spread: Class → standard deviation over the members, calibrated as the probabilities are.
        agreement: Share of members that predict the same class.
        tiles: Number of tiles behind it.
        flags: Findings out of the training's distribution.
        ood_score: Distance of the slide from the training as a multiple of the bound; None where the model
            has no statistics of its training slides.
        reason: Why there is no prediction or no decision; else empty.
        case_id: Patient, where known.
        model: ``name``, ``version`` and ``digest`` of the model that answered; empty where it isn't known.
        shown: Class → probability as it may be read out (``> 94.1 %``); empty where nothing could be
            predicted, and in files of 0.1.0.
    """

    slide_id: str
    prediction: str = ""
    decision: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    spread: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    tiles: int = 0
    flags: tuple[OodFlag, ...] = ()
    ood_score: float | None = None
    reason: str = ""
    case_id: str = ""
    model: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)

    def by(self, bundle: ModelBundle) -> SlidePrediction:
        """The same as that model's answer."""
        return replace(self, model=bundle.identity, shown=self.read_out(bundle.calibration))

    def read_out(self, calibration: Calibration) -> Mapping[str, str]:
        """Class → probability as it may be read out; where that isn't known, by a calibration."""
        return self.shown or {
            name: calibration.shown(p, self.prediction) for name, p in self.probabilities.items()
        }

    @property
    def flag_names(self) -> tuple[str, ...]:
        """What is flagged, each once: two colours beyond their bounds are both ``stain``."""
        return tuple(dict.fromkeys(flag.name for flag in self.flags))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "flags"},
            "probabilities": dict(self.probabilities),
            "spread": dict(self.spread),
            "flags": [{"name": flag.name, "words": flag.words, "score": flag.score} for flag in self.flags],
            "model": dict(self.model),
            "shown": dict(self.shown),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SlidePrediction:
        """Reads what :meth:`to_json` gave.

        Raises:
            KeyError: A value is missing.
            TypeError: One is of another kind.
        """
        flags = tuple(OodFlag(str(f["name"]), str(f["words"]), float(f["score"])) for f in values["flags"])
        rest = {name: values[name] for name in cls.__dataclass_fields__ if name not in ("flags", *_NEW)}
        new = {name: values[name] for name in _NEW if name in values}
        return cls(**rest, **new, flags=flags)


def no_prediction(slide_id: str, reason: str) -> SlidePrediction:
    """The entry of a slide that could not be predicted."""
    return SlidePrediction(slide_id, reason=reason)


def predict_slide(
    bundle: ModelBundle,
    slide_id: str,
    features: NDArray[np.floating[Any]],
    properties: SlideProperties,
    config: PredictConfig,
    coords: NDArray[np.integer[Any]] | None = None,
) -> tuple[SlidePrediction, EnsembleOutput]:
    """Predicts one slide.

    Args:
        bundle: The model.
        slide_id: The slide.
        features: Tile embeddings (N, D), N at least 1.
        properties: Resolution and colour of the slide.
        config: Thresholds of abstention.
        coords: Level-0 corners of the tiles (N, 2), where known.

    Returns:
        The prediction, and the ensemble's output with the attention of the tiles.

    Raises:
        InputError: Embeddings that the models don't take.
    """
    output = bundle.predict(features, coords)
    p = output.probabilities
    top = int(p.argmax())
    confidence = float(p[top])
    flags: tuple[OodFlag, ...] = ()
    score = None
    if bundle.ood is not None:
        flags = bundle.ood.flags(features, properties)
        score = bundle.ood.score(features)
    threshold = config.abstain_below
    if threshold is None:
        threshold = bundle.calibration.abstain_below
    reasons = []
    if confidence < threshold:
        reasons.append(below(confidence, threshold))
    if any(flag.score >= config.ood_threshold for flag in flags):
        # The words are those of 0.1: a column of predictions.csv.
        reasons.append("it is unlike the training: " + "; ".join(flag.words for flag in flags))
    prediction = bundle.classes[top]
    return (
        SlidePrediction(
            slide_id=slide_id,
            prediction=prediction,
            decision=ABSTAIN if reasons else prediction,
            probabilities=dict(zip(bundle.classes, p.tolist(), strict=True)),
            confidence=confidence,
            spread=dict(zip(bundle.classes, output.spread.tolist(), strict=True)),
            agreement=output.agreement,
            tiles=len(features),
            flags=flags,
            ood_score=score,
            reason="; ".join(reasons),
        ).by(bundle),
        output,
    )
