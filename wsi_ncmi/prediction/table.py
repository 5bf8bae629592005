"""Predictions of new slides as a table with the columns of ``predictions.csv``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.prediction.ensemble import Ensemble, SlidePrediction
from wsi_ncmi.progress import NullProgress, ProgressReporter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict_bags"]

NO_TILES = "no tissue: there is nothing to predict from"


def predict_bags(
    ensemble: Ensemble,
    source: BagSource,
    *,
    slide_ids: tuple[str, ...] | None = None,
    problems: Mapping[str, str] | None = None,
    on_slide: Callable[[str, SlidePrediction], None] | None = None,
    progress: ProgressReporter | None = None,
) -> pd.DataFrame:
    """Predicts every slide of a bag source.

    Args:
        ensemble: The models.
        source: Features.
        slide_ids: Which slides; None = all of the source.
        problems: Slide id → why it has no features; each gets a row without prediction.
        on_slide: Called with each prediction (heatmaps, GeoJSON).
        progress: Told about every slide.

    Returns:
        ``slide_id, case_id, fold, seed, label, prediction, p_<class>…`` (patient, fold, seed and label empty:
        they are not known for a new slide), then ``agreement``, ``tiles`` and ``reason``; one row a slide,
        sorted; ``prediction`` and probabilities empty where ``reason`` says why.
    """
    import pandas as pd

    lengths = dict(zip(source.slide_ids, source.lengths, strict=True))
    wanted = source.slide_ids if slide_ids is None else slide_ids
    rows = [_row(slide_id, ensemble, reason=reason) for slide_id, reason in (problems or {}).items()]
    with (progress or NullProgress()).task("predicting", len(wanted), "slides") as task:
        for slide_id in wanted:
            if lengths[slide_id] == 0:
                rows.append(_row(slide_id, ensemble, reason=NO_TILES))
            else:
                answer = ensemble.predict(source.load(slide_id))
                rows.append(_row(slide_id, ensemble, answer=answer, tiles=int(lengths[slide_id])))
                if on_slide is not None:
                    on_slide(slide_id, answer)
            task.advance()
    return pd.DataFrame(rows).sort_values("slide_id", ignore_index=True)


def _row(
    slide_id: str,
    ensemble: Ensemble,
    *,
    answer: SlidePrediction | None = None,
    tiles: int = 0,
    reason: str = "",
) -> dict[str, object]:
    known = answer is not None
    chances = answer.probabilities.tolist() if answer is not None else [None] * len(ensemble.classes)
    return {
        "slide_id": slide_id,
        "case_id": "",
        "fold": "",
        "seed": "",
        "label": "",
        "prediction": ensemble.classes[int(answer.probabilities.argmax())] if answer is not None else "",
        **{f"p_{name}": chance for name, chance in zip(ensemble.classes, chances, strict=True)},
        "agreement": answer.agreement if answer is not None else None,
        "tiles": tiles if known else 0,
        "reason": reason,
    }
