"""One self-contained HTML page about the predictions of new slides."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsi_ncmi.files import write_text
from wsi_ncmi.prediction.ensemble import Ensemble

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_prediction_page"]

_MOST_THUMBNAILS = 200


def write_prediction_page(
    path: Path,
    table: pd.DataFrame,
    ensemble: Ensemble,
    *,
    thumbnails: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Writes the page, atomically.

    Args:
        path: Where to.
        table: As :func:`wsi_ncmi.prediction.predict_bags` returns it.
        ensemble: The models.
        thumbnails: Folder with ``<slide_id>.jpg``; the first ones are embedded.
        provenance: Versions and hardware.
    """
    environment = Environment(
        loader=PackageLoader("wsi_ncmi.prediction"), autoescape=True, undefined=StrictUndefined
    )
    slides = []
    for number, row in enumerate(table.to_dict("records")):
        image = thumbnails / f"{row['slide_id']}.jpg"
        picture = ""
        if number < _MOST_THUMBNAILS and image.is_file():
            picture = base64.b64encode(image.read_bytes()).decode("ascii")
        chances = [] if row["reason"] else [(name, float(row[f"p_{name}"])) for name in ensemble.classes]
        slides.append({**row, "picture": picture, "chances": chances})
    counts = table.loc[table["prediction"] != "", "prediction"].value_counts()
    html = environment.get_template("predictions.html").render(
        model=ensemble.name,
        members=len(ensemble.members),
        features=ensemble.features,
        counts=[(name, int(counts.get(name, 0))) for name in ensemble.classes],
        unpredicted=int((table["prediction"] == "").sum()),
        slides=slides,
        provenance=provenance,
    )
    write_text(path, html)
