"""Shadow predictions: a second model beside the first, from the same features, into a table of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import atomic_path, ensure_folder, path_safe
from wsi_ncmi.prediction.bundle import ModelBundle, load_model
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.extraction_settings import extract_config
from wsi_ncmi.prediction.ood import slide_properties
from wsi_ncmi.prediction.outputs import slide_table
from wsi_ncmi.prediction.slide_prediction import SlidePrediction, no_prediction, predict_slide
from wsi_ncmi.prediction.slide_records import SlideRecords

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
FOLDER = "shadow"
_KEY = "features"  # column with the hash of the features that a row is the answer to
_SAME = (
    "encoder", "encoder_weights_sha256", "transform", "mpp_target", "tile_px", "overlap_px", "level", "stain",
    "stain_target",
)  # fmt: skip


class Shadow:
    """A model that predicts beside another; nothing of it reaches the answers, and no fault of it stops them.

    Args:
        config: With ``shadow``, the model.
        first: The model that answers.

    Attributes:
        file: Its table, ``shadow/<name>-<digest>.csv``: columns of ``predictions.csv``, and ``features``.

    Raises:
        InputError: It can't be loaded, or takes other features than the first.
    """

    def __init__(self, config: PredictConfig, first: ModelBundle) -> None:
        assert config.shadow is not None
        self._config, self._bundle = config, load_model(config.shadow)
        own = self._bundle
        differing = [key for key in _SAME if own.features.get(key) != first.features.get(key)]
        if differing or extract_config(own, config) != extract_config(first, config):
            what = differing[0].replace("_", " ") if differing else "kind (tissue, artefacts or grid)"
            raise InputError(
                f"The shadow model {own.name} takes features of another {what} than {first.name}; only a "
                "model of the same features can predict beside it."
            )
        self._rows: dict[str, dict[str, Any]] | None = None
        self._beside: dict[str, SlidePrediction] = {}
        self.file = config.out / FOLDER / f"{path_safe(own.name)}-{own.digest[:12]}.csv"

    def predict(self, records: SlideRecords, answers: Iterable[SlidePrediction]) -> str:
        """Predicts the slides that the first model answered, and writes the table.

        Args:
            records: Gives their features.
            answers: Of the first model.

        Returns:
            A sentence: how many slides, and how many otherwise.
        """
        import pandas as pd

        if self._rows is None:
            self._rows = self._read()
        rows = self._rows
        own, otherwise, total = self._bundle, 0, 0
        for answer in answers:
            if not answer.prediction:
                continue
            total += 1
            if self._beside.get(answer.slide_id) == answer:  # in a round before
                otherwise += rows[answer.slide_id].get("decision") != answer.decision
                continue
            self._beside[answer.slide_id] = answer
            key, prediction = "", None
            try:
                file = records.open(answer.slide_id)
                key = str(file.attrs.get("sha256", ""))
                if not key or rows.get(answer.slide_id, {}).get(_KEY) != key:
                    features, coords = records.load(file, answer.slide_id)
                    prediction, _ = predict_slide(
                        own, answer.slide_id, features, slide_properties(file), self._config, coords
                    )
                    prediction = replace(prediction, tiles=file.n_tiles)
            except Exception as error:  # whatever it is, the answers go out
                _LOG.warning("The shadow model failed on %s (%s).", answer.slide_id, error)
                failed = no_prediction(answer.slide_id, str(error) or type(error).__name__)
                key, prediction = "", failed.by(own)
            if prediction is not None:
                one = slide_table([replace(prediction, case_id=answer.case_id)], own.classes, own.calibration)
                rows[answer.slide_id] = {**_records(one)[0], _KEY: key}
            otherwise += rows[answer.slide_id].get("decision") != answer.decision
        columns = [*slide_table([], own.classes, own.calibration).columns, _KEY]
        table = pd.DataFrame([rows[slide_id] for slide_id in sorted(rows)], columns=columns)
        ensure_folder(self.file.parent)
        with atomic_path(self.file) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        return f"Shadow model {own.title}: {counted(total, 'slide')}, {otherwise} decided otherwise."

    def _read(self) -> dict[str, dict[str, Any]]:
        """Slide id → row of an earlier run; what can't be read is predicted again."""
        import pandas as pd

        try:
            table = pd.read_csv(self.file, dtype=str, keep_default_na=False)
            return {str(row["slide_id"]): row for row in _records(table)}
        except (OSError, ValueError, KeyError):
            return {}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
