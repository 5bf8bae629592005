"""Pictures of slides with the attention of the very models that were tested on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.features import open_features_file, thumbnail_path
from wsi_ncmi.reporting import SlidePicture, TileAttention, slide_picture
from wsi_ncmi.training import TrainedModel, load_trained

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pictures_of"]

_MOST_BYTES = 800_000


def pictures_of(
    slide_ids: Sequence[str], source: BagSource, folder: Path, tested: pd.DataFrame
) -> dict[str, SlidePicture]:
    """Draws slides, where features of ours and thumbnails lie together.

    Args:
        slide_ids: The slides, the most worth seeing first: 0.8 MB of pictures are made.
        source: Their features.
        folder: Of one loss: ``fold_<k>/seed_<s>`` with the models inside.
        tested: Predictions of that loss; they say which models tested a slide. No other model's attention is
            taken, since one that was trained on the slide knows its label.

    Returns:
        Slide id → pictures; slides without features of ours, coordinates or thumbnail are left out.
    """
    out, features_set = source.path.parent.parent, source.path.name.partition("@")[2]
    models: dict[Path, TrainedModel] = {}
    found: dict[str, SlidePicture] = {}
    size_bytes = 0
    for slide_id in slide_ids:
        file, thumbnail = source.path / f"{slide_id}.h5", thumbnail_path(out, slide_id, features_set)
        if not file.is_file() or not thumbnail.is_file():
            continue
        features = open_features_file(file)
        runs = tested.loc[tested["slide_id"] == slide_id, ["fold", "seed"]].drop_duplicates()
        bag, attentions = source.load(slide_id), []
        for fold, seed in runs.itertuples(index=False):
            place = folder / f"fold_{fold}" / f"seed_{seed}"
            if place not in models:
                models[place] = load_trained(place)
            attentions.append(models[place].predict(bag, features.coords)[1])
        size, about = features.attrs, features.coords_attrs
        attention = TileAttention(
            level0_px=(int(about["level0_width"]), int(about["level0_height"])),
            coords=features.coords,
            tile_px=(float(size["tile_size_level0_x"]), float(size["tile_size_level0_y"])),
            attention=np.mean(attentions, axis=0, dtype=np.float32),
            models=len(attentions),
        )
        picture = slide_picture(slide_id, thumbnail, attention)
        if picture is None:
            continue
        size_bytes += len(picture.slide) + len(picture.attention)
        if size_bytes > _MOST_BYTES:  # the report stays a file that can be sent
            break
        found[slide_id] = picture
    return found
