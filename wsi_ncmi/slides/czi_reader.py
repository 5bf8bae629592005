"""An optional reader: Zeiss CZI through libCZI (package pylibCZIrw), for files that OpenSlide refuses."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level
from wsi_ncmi.slides.clipped import ClippedSlide

_SEVERAL = {
    "C": "channels (fluorescence)", "Z": "focal planes", "T": "points in time", "R": "rotations",
    "I": "illuminations", "H": "phases", "V": "views", "B": "blocks",
}  # fmt: skip
_WHITE = (1.0, 1.0, 1.0)
_METRES = re.compile(r'<Distance Id="([XY])">\s*<Value>([0-9.eE+-]{1,30})</Value>')
_POWER = re.compile(r"<NominalMagnification>([0-9.]{1,10})</NominalMagnification>")


class CziSlide(ClippedSlide):
    """The scenes of a file on one canvas, as OpenSlide has them; attachments (label, overview) stay unread.

    The levels are the layers of its pyramid that are there for the whole of its first layer.
    """

    def __init__(self, path: Path) -> None:
        from pylibCZIrw.czi import CziReader

        self._handle: Any = CziReader(str(path))
        try:
            _check_is_rgb(self._handle)
            self._blocks, downs = _layers(self._handle)
            left, top = self._blocks[:, :2].min(axis=0).tolist()
            right, bottom = self._blocks[:, 2:].max(axis=0).tolist()
            width, height = right - left, bottom - top
            self._origin = left, top
            scenes = len(self._handle.scenes_bounding_rectangle_no_pyramid)
            super().__init__(
                path, reader="czi", vendor="zeiss",
                levels=[
                    Level(-(-width // down), -(-height // down), float(down), float(down)) for down in downs
                ],
                properties=_properties(self._handle.raw_metadata),
                note=f"The file holds {scenes} scenes, which are read as one image." if scenes > 1 else "",
            )  # fmt: skip
        except BaseException:
            self._handle.close()
            raise

    def _read_inside(
        self, level: int, left: int, top: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        down = int(self.reader_levels[level].downsample_x)
        x, y = self._origin[0] + left * down, self._origin[1] + top * down
        wide, high = width_px * down, height_px * down
        # The next float32 above 1 / down, for the library multiplies the sides with it and rounds down.
        zoom = float(np.nextafter(np.float32(1 / down), np.float32(1)))
        pixels = self._handle.read(roi=(x, y, wide, high), zoom=zoom, background_pixel=_WHITE)
        result = np.zeros((height_px, width_px, 4), dtype=np.uint8)
        result[:, :, :3] = pixels[:height_px, :width_px, ::-1]  # blue comes first
        blocks = self._blocks - (x, y, x, y)
        touched = (blocks[:, :2] < (wide, high)).all(axis=1) & (blocks[:, 2:] > 0).all(axis=1)
        for x0, y0, x1, y1 in (blocks[touched].clip(0) // down).tolist():
            result[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1), 3] = 255
        return result

    def _close(self) -> None:
        self._handle.close()


def _check_is_rgb(handle: Any) -> None:
    sizes = {axis: stop - start for axis, (start, stop) in handle.total_bounding_box.items()}
    several = [f"{sizes[axis]} {name}" for axis, name in _SEVERAL.items() if sizes.get(axis, 1) > 1]
    if several:
        raise SlideOpenError(f"it holds {' and '.join(several)}; export one of them as 8-bit RGB")
    kind = handle.get_channel_pixel_type(0)
    if kind != "Bgr24":
        raise SlideOpenError(f"its pixels are of the kind {kind} (fluorescence?), not 8-bit RGB")


def _layers(handle: Any) -> tuple[NDArray[np.int64], list[int]]:
    """Left, top, right and bottom of the blocks of the first layer, int64 (n, 4); all downsamples."""
    rectangles: dict[int, list[tuple[int, int, int, int]]] = {}

    def take(_: int, info: Any) -> bool:
        place, stored = info.logicalRect, info.physicalSize
        down = max(1, round(place.w / max(stored.w, 1)))
        rectangles.setdefault(down, []).append((place.x, place.y, place.x + place.w, place.y + place.h))
        return True

    handle.enumerate_subblocks(take)
    layers = {down: np.array(each, dtype=np.int64) for down, each in rectangles.items()}
    if 1 not in layers:
        raise SlideOpenError("it holds no image at full resolution")
    corner, end = layers[1][:, :2].min(axis=0), layers[1][:, 2:].max(axis=0)
    whole = [
        down
        for down, each in sorted(layers.items())
        if (each[:, :2].min(axis=0) <= corner).all() and (each[:, 2:].max(axis=0) > end - down).all()
    ]
    return layers[1], whole


def _properties(metadata: str) -> Mapping[str, str]:
    """Microns per pixel and power of the objective; nothing else of the metadata, which may name people."""
    found = {
        f"openslide.mpp-{axis.lower()}": repr(float(metres) * 1e6)
        for axis, metres in _METRES.findall(metadata)
    }
    powers = set(_POWER.findall(metadata))
    if len(powers) == 1:
        found["openslide.objective-power"] = powers.pop()
    return found
