"""Image sets in one ``.npz``: the keys of Keras (``x_train``) and of MedMNIST (``train_images``)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision.data.parts import ArrayPart

__all__ = ["read_npz"]

_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)


def read_npz(path: Path) -> tuple[tuple[str, ...], ArrayPart, ArrayPart]:
    """Reads classes, training and test part.

    Images are uint8, (N, H, W, 3), (N, 3, H, W), or grey (N, H, W) or (N, H, W, 1); labels are (N,) or (N,
    1). Class names are in the key ``classes``, else they are the numbers.

    Raises:
        InputError: The file can't be read, lacks a key, or holds something else; pickled objects are refused.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            keys = next((keys for keys in _KEYS if all(key in content for key in keys)), None)
            if keys is None:
                raise ValueError(f"it has the keys {', '.join(content.files)}")
            x_train, y_train, x_test, y_test = (content[key] for key in keys)
            names = [str(name) for name in content["classes"]] if "classes" in content else None
        train, test = _part(x_train, y_train), _part(x_test, y_test)
        count = int(max(train.y.max(), test.y.max())) + 1
        if names is not None and len(names) < count:
            raise ValueError(f"it names {len(names)} classes and labels go up to {count - 1}")
        if train.pixels.shape[1:] != test.pixels.shape[1:]:
            raise ValueError("training and test images differ in size")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} holds no image set ({error}); it needs x_train, y_train, x_test, y_test, or "
            "train_images, train_labels, test_images, test_labels."
        ) from error
    return tuple(names or map(str, range(count))), train, test


def _part(x: NDArray[np.uint8], y: NDArray[np.integer]) -> ArrayPart:
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or len(x) == 0:
        raise ValueError(f"images are {x.dtype} of shape {x.shape}, not uint8 (N, H, W, 3)")
    if x.ndim == 3:
        x = x[..., None]
    elif x.shape[-1] not in (1, 3) and x.shape[1] in (1, 3):
        x = x.transpose(0, 2, 3, 1)
    if x.shape[-1] == 1:
        x = np.repeat(x, 3, axis=-1)
    if x.shape[-1] != 3 or x.shape[1] != x.shape[2]:
        raise ValueError(f"images of shape {x.shape[1:]} are not square with 1 or 3 channels")
    labels = y.reshape(len(y), -1)
    if len(labels) != len(x) or labels.shape[1] != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{len(x)} images and labels of shape {y.shape}, {y.dtype}")
    if labels.min() < 0:
        raise ValueError("a label is negative")
    return ArrayPart(np.ascontiguousarray(x), labels[:, 0].astype(np.int64))
