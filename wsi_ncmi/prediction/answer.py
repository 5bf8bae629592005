"""From a slide's features to the answer that is handed over: class, confidence, abstention, flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.bundle.model import ModelBundle
from wsi_ncmi.prediction.ensemble import SlidePrediction
from wsi_ncmi.prediction.reference import Flag, SlideMetadata

__all__ = ["ABSTAIN", "NO_TILES", "AnswerRules", "SlideAnswer", "answer_slide", "no_answer"]

ABSTAIN = "abstain"
"""The decision where the model has no answer that should be used unseen."""

NO_TILES = "no tissue: there is nothing to predict from"


@dataclass(frozen=True)
class AnswerRules:
    """When there is no answer.

    Attributes:
        abstain_below: No answer below this largest probability; None = the bundle's own threshold.
        unlike: What happens to slides unlike the training: ``abstain``, or ``flag`` and answer all the same.
    """

    abstain_below: float | None = None
    unlike: Literal["abstain", "flag"] = "abstain"

    def __post_init__(self) -> None:
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise InputError(f"The threshold must be between 0 and 1, got {self.abstain_below}.")


@dataclass(frozen=True)
class SlideAnswer:
    """What is handed over of one slide.

    Attributes:
        slide_id: The slide.
        prediction: The most probable class; empty where nothing could be predicted.
        decision: That class, ``abstain``, or empty where nothing could be predicted.
        probabilities: Class → calibrated probability; empty where nothing could be predicted.
        confidence: The largest of them.
        spread: Class → standard deviation over the members, before calibration.
        agreement: Share of members whose own answer is the prediction.
        tiles: Tiles that the answer rests on.
        flags: What is unlike the training.
        ood_score: Distance of the slide from the training as a multiple of the bound; None without reference.
        reason: Why there is no answer, or none to be used unseen; else empty.
        case_id: Patient, where known.
    """

    slide_id: str
    prediction: str = ""
    decision: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    spread: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    tiles: int = 0
    flags: tuple[Flag, ...] = ()
    ood_score: float | None = None
    reason: str = ""
    case_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "flags"},
            "probabilities": dict(self.probabilities),
            "spread": dict(self.spread),
            "flags": [{"name": flag.name, "words": flag.words, "score": flag.score} for flag in self.flags],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SlideAnswer:
        """Reads what :meth:`to_json` gave.

        Raises:
            KeyError: A value is missing.
            TypeError: One is of another kind.
        """
        flags = tuple(Flag(str(f["name"]), str(f["words"]), float(f["score"])) for f in values["flags"])
        rest = {name: values[name] for name in cls.__dataclass_fields__ if name != "flags"}
        return cls(**rest, flags=flags)


def no_answer(slide_id: str, reason: str) -> SlideAnswer:
    """The answer for a slide that could not be predicted."""
    return SlideAnswer(slide_id, reason=reason)


def answer_slide(
    bundle: ModelBundle,
    slide_id: str,
    features: NDArray[np.floating[Any]],
    facts: SlideMetadata,
    rules: AnswerRules,
    coordinates: NDArray[np.integer[Any]] | None = None,
) -> tuple[SlideAnswer, SlidePrediction]:
    """Answers one slide.

    Args:
        bundle: The model.
        slide_id: The slide.
        features: Tile embeddings (N, D), N at least 1.
        facts: Its resolution and colour.
        rules: When there is no answer.
        coordinates: Places of the tiles (N, 2), level-0 px, where known.

    Returns:
        The answer, and the prediction with the tiles' attention behind it.

    Raises:
        InputError: Embeddings that the models don't take.
    """
    found = bundle.predict(features, coordinates)
    p = found.probabilities
    top = int(p.argmax())
    confidence = float(p[top])
    flags: tuple[Flag, ...] = ()
    score = None
    if bundle.reference is not None:
        flags = bundle.reference.flags(features, facts)
        score = bundle.reference.score(features)
    threshold = rules.abstain_below
    if threshold is None:
        threshold = bundle.calibration.abstain_below
    reasons = []
    if confidence < threshold:
        reasons.append(f"its largest probability {confidence:.3f} is below {threshold:.3f}")
    if flags and rules.unlike == "abstain":
        reasons.append("it is unlike the training: " + "; ".join(flag.words for flag in flags))
    prediction = bundle.classes[top]
    return (
        SlideAnswer(
            slide_id=slide_id,
            prediction=prediction,
            decision=ABSTAIN if reasons else prediction,
            probabilities=dict(zip(bundle.classes, p.tolist(), strict=True)),
            confidence=confidence,
            spread=dict(zip(bundle.classes, found.spread.tolist(), strict=True)),
            agreement=found.agreement,
            tiles=len(features),
            flags=flags,
            ood_score=score,
            reason="; ".join(reasons),
        ),
        found,
    )
