"""Everything that the page of one slide asks for: page, data, tiles of the slide and of its values."""

import io
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from wsi_ncmi.reporting.heatmaps.drawing import rasterise
from wsi_ncmi.reporting.heatmaps.values import SCALES, colours_of, scaled
from wsi_ncmi.reporting.viewer.deepzoom import DeepZoom
from wsi_ncmi.reporting.viewer.viewer_data import ViewerData

Answer = tuple[bytes, str]
"""Content and its type."""

_KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
PAGE = {
    "": "index.html",
    **{
        file.rpartition("/")[2]: file
        for file in ("viewer.js", "overlays.js", "viewer.css", "vendor/openseadragon.min.js")
    },
}
"""Address → file of the page of a slide."""

_SLIDE_TILE = re.compile(r"slide/(\d{1,2})/(\d{1,6})_(\d{1,6})\.jpg")
_HEAT_TILE = re.compile(r"heat/(\d{1,3})/(percentile|absolute)/(\d{1,2})/(\d{1,6})_(\d{1,6})\.png")


@cache
def asset(file: str) -> Answer:
    """A file of the viewer's pages."""
    path = resources.files("wsi_ncmi.reporting.viewer") / "assets" / file
    return path.read_bytes(), f"{_KINDS[file.rpartition('.')[2]]}; charset=utf-8"


def as_json(value: Any) -> Answer:
    """A JSON answer."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), "application/json"


class SlidePages:
    """Pages of one slide.

    Args:
        data: Slide and overlays; its slide stays open until after :meth:`close`.
    """

    def __init__(self, data: ViewerData) -> None:
        self._data = data
        self._zoom = DeepZoom(data.slide)
        self._values = lru_cache(maxsize=64)(self._scaled)
        self._texts = {
            "info.json": as_json(data.info(self._zoom.tile_px)),
            "tiles.json": as_json(data.tile_json()),
            "shapes.json": as_json(data.shape_json()),
        }

    def get(self, name: str, query: Mapping[str, str]) -> Answer | None:
        """Content and its type; None where there is nothing of that name.

        Raises:
            SlideError: A tile can't be read.
        """
        if name in PAGE:
            return asset(PAGE[name])
        if name in self._texts:
            return self._texts[name]
        if match := _SLIDE_TILE.fullmatch(name):
            level, column, row = (int(text) for text in match.groups())
            if not self._zoom.has(level, column, row):
                return None
            return self._zoom.jpeg(level, column, row), "image/jpeg"
        if match := _HEAT_TILE.fullmatch(name):
            return self._heat(int(match[1]), match[2], *(int(match[i]) for i in (3, 4, 5)))
        return None

    def post(self, name: str, content: Any) -> Mapping[str, Any] | None:
        """Nothing of a single slide is stored."""
        return None

    def close(self) -> None:
        """Closes what was opened of the slide, not the slide."""
        self._zoom.close()

    def _heat(self, layer: int, scale: str, level: int, column: int, row: int) -> Answer | None:
        import numpy as np
        from PIL import Image

        tiles = self._data.tiles
        if tiles is None or layer >= len(tiles.layers) or not self._zoom.has(level, column, row):
            return None
        window, shape = self._zoom.window(level, column, row)
        boxes, values = self._values(layer, scale)
        mean, covered = rasterise(boxes, values, window, shape)
        pixels = np.concatenate(
            (colours_of(mean), np.rint(covered * 255).astype(np.uint8)[..., None]), axis=2
        )
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue(), "image/png"

    def _scaled(self, layer: int, scale: str) -> tuple[Any, Any]:
        tiles = self._data.tiles
        assert tiles is not None
        assert scale in SCALES
        return tiles.boxes, scaled(tiles.layers[layer], scale)
