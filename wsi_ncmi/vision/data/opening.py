"""Finds out what an image set is, opens it, and draws the parts that the options ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training.seeding import derive_seed
from wsi_ncmi.vision.config import ImageDataConfig
from wsi_ncmi.vision.data.arrays import read_npz
from wsi_ncmi.vision.data.cifar import is_cifar, read_cifar
from wsi_ncmi.vision.data.folders import is_folders, read_folders
from wsi_ncmi.vision.data.mosaics import is_mosaics, read_mosaics
from wsi_ncmi.vision.data.parts import ArrayPart, ImageData, ImagePart, PicturePart
from wsi_ncmi.vision.data.shards import is_shards, read_shards

__all__ = ["open_images"]


def open_images(options: ImageDataConfig) -> ImageData:
    """Opens the image set.

    What is drawn (``images_per_class``, ``validation``) depends on the options alone, not on a run's seed:
    all runs have the same parts.

    Raises:
        InputError: There is no such set, it is damaged, or the options ask for what it doesn't have.
    """
    if options.path is None:
        raise InputError("No images are given; set data.path to the folder or file that holds them.")
    classes, train, test = _read(Path(options.path))
    classes, chosen = _chosen(classes, options)
    train, test = _of_classes(train, chosen), _of_classes(test, chosen)
    rows, held_out = _drawn(train.y, options)
    validation = train.take(held_out) if len(held_out) else None
    train = train.take(rows)
    missing = np.flatnonzero(np.bincount(train.y, minlength=len(classes)) == 0)
    if len(missing):
        raise InputError(f"The training part of {options.path} has no image of {classes[missing[0]]!r}.")
    return ImageData(classes, train, validation, test if options.evaluate_on == "test" else None)


def _read(path: Path) -> tuple[tuple[str, ...], ImagePart, ImagePart]:
    if not path.exists():
        raise InputError(f"There is no image set at {path} (data.path).")
    if is_cifar(path):
        return read_cifar(path)
    if path.is_file() and path.suffix == ".npz":
        return read_npz(path)
    if path.is_dir():
        if is_mosaics(path):
            return read_mosaics(path)
        if is_folders(path):
            return read_folders(path)
        if is_shards(path):
            return read_shards(path)
    raise InputError(
        f"{path} is no image set that is known here: CIFAR-10/100 as published, an .npz, mosaics, train/ and "
        "val/ of one folder a class, or WebDataset shards *train*.tar and *val*.tar."
    )


def _chosen(classes: tuple[str, ...], options: ImageDataConfig) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The wanted classes and, for every class of the set, its new index (−1 = left out)."""
    wanted = options.classes
    if wanted is None:
        wanted = classes
    elif isinstance(wanted, int):
        if wanted > len(classes):
            raise InputError(f"data.classes is {wanted}, but {options.path} has {len(classes)} classes.")
        wanted = classes[:wanted]
    unknown = [name for name in wanted if name not in classes]
    if unknown or len(set(wanted)) < max(2, len(wanted)):
        what = f"{unknown[0]!r} is not a class of the set" if unknown else "it needs two or more, each once"
        raise InputError(f"data.classes of {options.path} is wrong: {what}.")
    index = np.full(len(classes), -1, dtype=np.int64)
    for position, name in enumerate(wanted):
        index[classes.index(name)] = position
    return tuple(wanted), index


def _of_classes(part: ImagePart, index: NDArray[np.int64]) -> ImagePart:
    y = index[part.y]
    rows = np.flatnonzero(y >= 0)
    if not len(rows):
        raise InputError("A part of the image set has no image of the chosen classes (data.classes).")
    taken = part if len(rows) == len(y) else part.take(rows)
    if isinstance(taken, ArrayPart):
        return ArrayPart(taken.pixels, y[rows])
    return PicturePart(taken.names, y[rows], taken.read, taken.rows)


def _drawn(y: NDArray[np.int64], options: ImageDataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of training and of validation, each sorted."""
    generator = np.random.default_rng(derive_seed(0, "images"))
    rows, held_out = [], []
    for label in range(int(y.max()) + 1):
        mine = generator.permutation(np.flatnonzero(y == label))
        apart = round(options.validation * len(mine))
        held_out.append(mine[:apart])
        rows.append(mine[apart:][: options.images_per_class])
    return np.sort(np.concatenate(rows)), np.sort(np.concatenate(held_out)).astype(np.int64)
