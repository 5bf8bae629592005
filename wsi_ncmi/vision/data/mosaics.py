"""Small images in lossless mosaics: ``train_0.webp`` …, ``test.webp``, ``labels.npz``, ``meta.json``."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision.data.parts import ArrayPart

__all__ = ["is_mosaics", "read_mosaics"]

_SUFFIXES = ("webp", "png")
_MOST_PIXELS = 2**26  # of one mosaic, 8192²: more is no mosaic of small images


def is_mosaics(path: Path) -> bool:
    """Whether the folder holds mosaics."""
    return (path / "labels.npz").is_file() and bool(_files(path, "train"))


def read_mosaics(path: Path) -> tuple[tuple[str, ...], ArrayPart, ArrayPart]:
    """Reads classes, training and test part.

    A mosaic is square rows of square images, filled row by row; its grid is 100 × 100 unless ``meta.json``
    says otherwise (``grid``), the class names are there too (``fine_label_names``, ``label_names`` or
    ``classes``).

    Raises:
        InputError: A file is missing or damaged, or images and labels don't match in number.
    """
    try:
        meta_file = path / "meta.json"
        meta = json.loads(meta_file.read_text(encoding="utf-8")) if meta_file.is_file() else {}
        with np.load(path / "labels.npz", allow_pickle=False) as labels:
            y_train, y_test = (labels[key].astype(np.int64) for key in ("train", "test"))
        grid = int(meta.get("grid", 100))
        train, test = (_pixels(_files(path, name), grid) for name in ("train", "test"))
        count = int(max(y_train.max(), y_test.max())) + 1
        names = next((meta[k] for k in ("fine_label_names", "label_names", "classes") if k in meta), None)
        if names is not None and len(names) < count:
            raise ValueError(f"{len(names)} class names and labels up to {count - 1}")
        for pixels, y in ((train, y_train), (test, y_test)):
            if len(pixels) != len(y) or y.min() < 0:
                raise ValueError(f"{len(pixels)} images and {len(y)} labels")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise InputError(f"The mosaics in {path} can't be read ({error}); copy the folder again.") from error
    classes = tuple(str(name) for name in names) if names else tuple(map(str, range(count)))
    return classes, ArrayPart(train, y_train), ArrayPart(test, y_test)


def _files(path: Path, part: str) -> list[Path]:
    found = [item for suffix in _SUFFIXES for item in path.glob(f"{part}*.{suffix}")]

    def number(item: Path) -> int:
        digits = item.stem.rpartition("_")[2]
        return int(digits) if digits.isdecimal() else -1

    return sorted(found, key=number)


def _pixels(files: list[Path], grid: int) -> NDArray[np.uint8]:
    parts = []
    for file in files:
        with Image.open(file) as picture:
            width, height = picture.size
            if width * height > _MOST_PIXELS or width % grid or height % (width // grid):
                raise ValueError(f"{file.name} of {width} × {height} pixels is no mosaic of {grid} columns")
            pixels = np.asarray(picture.convert("RGB"))
        side = width // grid
        tiles = pixels.reshape(height // side, side, grid, side, 3).transpose(0, 2, 1, 3, 4)
        parts.append(tiles.reshape(-1, side, side, 3))
    if not parts:
        raise ValueError("there is no test mosaic")
    return np.ascontiguousarray(np.concatenate(parts))
