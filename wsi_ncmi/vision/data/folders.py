"""Image folders in ImageNet's style: ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg`` (or ``test/``)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision.data.parts import PicturePart

__all__ = ["PICTURE_SUFFIXES", "is_folders", "read_folders"]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_TEST_NAMES = ("test", "val", "validation")


@dataclass(frozen=True)
class _Reader:
    """Decodes the picture at a position of a list of files."""

    folder: Path
    files: tuple[str, ...]

    def __call__(self, row: int) -> Image.Image:
        with Image.open(self.folder / self.files[row]) as picture:
            return picture.convert("RGB")


def is_folders(path: Path) -> bool:
    """Whether the folder holds ``train/`` with folders inside."""
    return (path / "train").is_dir() and any(item.is_dir() for item in (path / "train").iterdir())


def read_folders(path: Path) -> tuple[tuple[str, ...], PicturePart, PicturePart]:
    """Lists classes (the folders of ``train/``, sorted), training and test part; no picture is opened.

    The test part is ``test/`` where it is sorted by class, else ``val/`` or ``validation/``.

    Raises:
        InputError: A part is missing or empty, or the test part has a class that the training part lacks.
    """
    classes = _classes(path / "train")
    names = [name for name in _TEST_NAMES if (path / name).is_dir() and _classes(path / name)]
    if not names:
        raise InputError(
            f"{path} has train/ but neither test/ nor val/ with one folder a class; the evaluation needs one."
        )
    unknown = sorted(set(_classes(path / names[0])) - set(classes))
    if unknown:
        raise InputError(f"{path / names[0]} has the class {unknown[0]!r}, which train/ lacks.")
    return classes, _part(path, "train", classes), _part(path, names[0], classes)


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(item.name for item in folder.iterdir() if item.is_dir()))


def _part(path: Path, name: str, classes: tuple[str, ...]) -> PicturePart:
    files: list[str] = []
    y: list[int] = []
    for index, label in enumerate(classes):
        folder = path / name / label
        if not folder.is_dir():
            continue
        found = sorted(
            str((Path(parent) / file).relative_to(path).as_posix())
            for parent, _, inside in os.walk(folder, followlinks=True)
            for file in inside
            if file.lower().endswith(PICTURE_SUFFIXES) and not file.startswith(".")
        )
        files += found
        y += [index] * len(found)
    if not files:
        raise InputError(f"{path / name} holds no picture ({', '.join(PICTURE_SUFFIXES)}).")
    return PicturePart(
        files, np.array(y, dtype=np.int64), _Reader(path, tuple(files)), np.arange(len(files), dtype=np.int64)
    )
