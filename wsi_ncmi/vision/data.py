"""Opening an image set: its format, its classes, and the parts that are drawn from it."""

import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training import derive_seed
from wsi_ncmi.vision.arrays import ArrayPart, find_cifar, is_mosaics, read_cifar, read_mosaics, read_npz
from wsi_ncmi.vision.config import ImageDataConfig
from wsi_ncmi.vision.pictures import PicturePart, is_folders, is_shards, read_folders, read_shards

ImagePart = ArrayPart | PicturePart

_FORMATS = (
    (lambda path: find_cifar(path) is not None, read_cifar,
     "{path} isn't CIFAR-10 or CIFAR-100 as published ({reason}); get cifar-10-python.tar.gz or "
     "cifar-100-python.tar.gz again."),
    (lambda path: path.is_file() and path.suffix == ".npz", read_npz,
     "{path} holds no image set ({reason}); it needs x_train, y_train, x_test, y_test, or train_images, "
     "train_labels, test_images, test_labels."),
    (is_mosaics, read_mosaics, "The mosaics in {path} can't be read ({reason}); copy the folder again."),
    (is_folders, read_folders, "The image folders in {path} can't be listed ({reason})."),
    (is_shards, read_shards, "The shards in {path} can't be indexed ({reason})."),
)  # fmt: skip
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, pickle.UnpicklingError,
    tarfile.TarError, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class ImageData:
    """A whole set.

    Attributes:
        classes: Class names in the order of the indices.
        train: Training images.
        validation: Images held out of the training images, or None.
        test: The set's own test part, or None where it is not to be opened.
    """

    classes: tuple[str, ...]
    train: ImagePart
    validation: ImagePart | None
    test: ImagePart | None


def open_images(config: ImageDataConfig) -> ImageData:
    """Opens the image set.

    What is drawn (``images_per_class``, ``validation``) depends on the configuration alone, not on a run's
    seed: all runs have the same parts.

    Raises:
        InputError: There is no such set, it is damaged, or it lacks what the configuration asks for.
    """
    if config.path is None:
        raise InputError("No images are given; set data.path to the folder or file that holds them.")
    names, train, test = _read(Path(config.path))
    classes = _chosen(names, config)
    index = np.full(len(names), -1, dtype=np.int64)  # −1: left out
    index[[names.index(name) for name in classes]] = np.arange(len(classes))
    train, test = _of_classes(train, index), _of_classes(test, index)
    rows, held_out = _drawn(train.y, config)
    validation = train.take(held_out) if len(held_out) else None
    train = train.take(rows)
    missing = np.flatnonzero(np.bincount(train.y, minlength=len(classes)) == 0)
    if len(missing):
        raise InputError(f"The training part of {config.path} has no image of {classes[missing[0]]!r}.")
    return ImageData(classes, train, validation, test if config.evaluate_on == "test" else None)


def _read(path: Path) -> tuple[tuple[str, ...], ImagePart, ImagePart]:
    if not path.exists():
        raise InputError(f"There is no image set at {path} (data.path).")
    for fits, read, message in _FORMATS:
        if fits(path):
            try:
                return read(path)
            except _UNREADABLE as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(message.format(path=path, reason=reason)) from error
    raise InputError(
        f"{path} is no image set of a known format: CIFAR-10/100 as published, an .npz, mosaics, train/ and "
        "val/ of one folder a class, or WebDataset shards *train*.tar and *val*.tar."
    )


def _chosen(names: tuple[str, ...], config: ImageDataConfig) -> tuple[str, ...]:
    wanted = config.classes
    if wanted is None:
        return names
    if isinstance(wanted, int):
        if wanted > len(names):
            raise InputError(f"data.classes is {wanted}, but {config.path} has {len(names)} classes.")
        return names[:wanted]
    unknown = [name for name in wanted if name not in names]
    if unknown or len(set(wanted)) < max(2, len(wanted)):
        what = f"{unknown[0]!r} is not a class of the set" if unknown else "it needs two or more, each once"
        raise InputError(f"data.classes of {config.path} is wrong: {what}.")
    return wanted


def _of_classes(part: ImagePart, index: NDArray[np.int64]) -> ImagePart:
    y = index[part.y]
    rows = np.flatnonzero(y >= 0)
    if not len(rows):
        raise InputError("A part of the image set has no image of the chosen classes (data.classes).")
    return part.take(rows, y[rows])


def _drawn(y: NDArray[np.int64], config: ImageDataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of training and of validation, each sorted."""
    generator = np.random.default_rng(derive_seed(0, "images"))
    rows, held_out = [], []
    for label in range(int(y.max()) + 1):
        mine = generator.permutation(np.flatnonzero(y == label))
        apart = round(config.validation * len(mine))
        held_out.append(mine[:apart])
        rows.append(mine[apart:][: config.images_per_class])
    return np.sort(np.concatenate(rows)), np.sort(np.concatenate(held_out)).astype(np.int64)
