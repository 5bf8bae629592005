"""HTML pages about the predictions: one of all slides, one a slide."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.files import write_text
from wsi_ncmi.core.pages import page_environment
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.slide_prediction import ABSTAIN, SlidePrediction

if TYPE_CHECKING:
    import pandas as pd

_MAX_THUMBNAILS = 200
_MIME = {".jpg": "image/jpeg", ".png": "image/png"}


_environment = cache(lambda: page_environment("wsi_ncmi.prediction"))


def _render(template: str, **values: Any) -> str:
    """Renders a template of this package."""
    style = resources.files("wsi_ncmi.reporting") / "templates" / "style.css"  # that of the training's report
    return _environment().get_template(template).render(style=style.read_text("utf-8"), **values)


def _data_uri(path: Path) -> str:
    """A picture as the page's own data; empty where there is none."""
    if not path.is_file():
        return ""
    return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def other_model(prediction: SlidePrediction, digest: str) -> str:
    """Name and version of the model that answered, where it is another than the one of that digest."""
    model = prediction.model
    return "" if model.get("digest", digest) == digest else f"{model['name']} {model['version']}".rstrip()


def write_slide_page(
    path: Path,
    prediction: SlidePrediction,
    bundle: ModelBundle,
    pictures: Mapping[str, Path],
    *,
    back: str,
) -> None:
    """Writes the page, atomically; it holds its pictures and loads nothing.

    Args:
        path: Where to.
        prediction: The prediction for the slide.
        bundle: The model.
        pictures: Title → ``.png`` or ``.jpg`` to show, in order; a missing one is left out.
        back: Relative address of the page of all slides.
    """
    shown = [(title, uri) for title, file in pictures.items() if (uri := _data_uri(file))]
    html = _render(
        "slide.html.j2",
        prediction=prediction,
        chances=[(name, p, prediction.spread[name]) for name, p in prediction.probabilities.items()],
        bundle=bundle,
        pictures=shown,
        back=back,
    )
    write_text(path, html)


def write_prediction_page(
    path: Path,
    predictions: Sequence[SlidePrediction],
    bundle: ModelBundle,
    *,
    thumbnails: Path,
    patients: pd.DataFrame | None,
    provenance: Mapping[str, Any],
    seconds: Mapping[str, float] | None = None,
    abstain_below: float | None = None,
) -> None:
    """Writes the page, atomically.

    Slides that need a person come first: those without prediction, then those abstained from, the farthest
    from the training first, then the others, the least confident first.

    Args:
        path: Where to.
        predictions: The prediction for each slide.
        bundle: The model.
        thumbnails: Folder with ``<slide_id>.jpg``; the first ones are embedded.
        patients: As ``patient_table`` returns it, or None.
        provenance: Versions and hardware.
        seconds: Stage → seconds that it took in this job.
        abstain_below: Threshold in force, where it isn't the bundle's.
    """
    ordered = sorted(predictions, key=_urgency)
    slides = [
        {
            "prediction": prediction,
            "picture": _data_uri(thumbnails / f"{prediction.slide_id}.jpg")
            if number < _MAX_THUMBNAILS
            else "",
            "chances": list(prediction.probabilities.items()),
            "shown": prediction.read_out(bundle.calibration),
            "by": other_model(prediction, bundle.digest),
        }
        for number, prediction in enumerate(ordered)
    ]
    calibration = bundle.calibration
    if abstain_below is not None:
        calibration = replace(calibration, abstain_below=abstain_below)
    decisions = Counter(prediction.decision for prediction in predictions)
    html = _render(
        "predictions.html.j2",
        bundle=bundle,
        counts=[(name, decisions.get(name, 0)) for name in bundle.classes],
        abstained=decisions.get(ABSTAIN, 0),
        unpredicted=decisions.get("", 0),
        flagged=sum(bool(prediction.flags) for prediction in predictions),
        calibration=calibration,
        slides=slides,
        patients=[] if patients is None else patients.to_dict("records"),
        provenance=provenance,
        seconds=dict(seconds or {}),
    )
    write_text(path, html)


def _urgency(prediction: SlidePrediction) -> tuple[int, float, str]:
    if not prediction.prediction:
        return 0, 0.0, prediction.slide_id
    if prediction.decision == ABSTAIN:
        return 1, -(prediction.ood_score or 0.0), prediction.slide_id
    return 2, prediction.confidence or 0.0, prediction.slide_id
