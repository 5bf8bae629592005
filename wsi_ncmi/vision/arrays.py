"""Image sets in memory: CIFAR as published, one ``.npz``, lossless mosaics."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.files import parse_json

_CIFAR_10 = tuple(f"data_batch_{i}" for i in range(1, 6))
_CIFAR_FILES = (*_CIFAR_10, "test_batch", "batches.meta", "train", "test", "meta")
_CIFAR_FOLDERS = ("", "cifar-10-batches-py", "cifar-100-python")
_CIFAR_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz")
# What the pickles of CIFAR are made of; anything else in them is refused instead of being executed.
_ALLOWED = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray",
            "numpy.dtype", "_codecs.encode")  # fmt: skip
_NPZ_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
_MAX_PIXELS = 2**26  # of one mosaic, 8192²: more is no mosaic of small images


@dataclass(frozen=True)
class ArrayPart:
    """Images of one size in memory.

    Attributes:
        pixels: uint8 (N, H, W, 3), RGB.
        y: Class indices, int64 (N,).
    """

    pixels: NDArray[np.uint8]
    y: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64], y: NDArray[np.int64] | None = None) -> ArrayPart:
        """The part of these rows, with other class indices if they are given."""
        return ArrayPart(self.pixels[rows], self.y[rows] if y is None else y)

    def digest(self) -> str:
        """A hash of labels and pixels (of at most 1,000 images, evenly spread)."""
        rows = np.unique(np.linspace(0, len(self.y) - 1, 1000).astype(np.int64))
        content = hashlib.sha256(self.y.tobytes())
        content.update(str(self.pixels.shape).encode())
        content.update(np.ascontiguousarray(self.pixels[rows]).tobytes())
        return content.hexdigest()[:16]


_Set = tuple[tuple[str, ...], ArrayPart, ArrayPart]
_Images = tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]


def _checked(names: Sequence[str] | None, train: _Images, test: _Images) -> _Set:
    """Classes (numbers where they have no names), training and test part; ``ValueError`` on a mismatch."""
    for pixels, y in (train, test):
        if len(pixels) != len(y) or not len(y):
            raise ValueError(f"{len(pixels)} images and {len(y)} labels")
        if y.min() < 0:
            raise ValueError("a label is negative")
    count = int(max(train[1].max(), test[1].max())) + 1
    if names is not None and len(names) < count:
        raise ValueError(f"it names {len(names)} classes and labels go up to {count - 1}")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError("training and test images differ in size")
    parts = (ArrayPart(np.ascontiguousarray(pixels), y.astype(np.int64)) for pixels, y in (train, test))
    return tuple(map(str, names or range(count))), next(parts), next(parts)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def find_cifar(path: Path) -> Path | None:
    """The folder or archive of CIFAR-10 or CIFAR-100 as published that a path is or holds."""
    if path.is_file():
        return path if path.name.endswith((".tar.gz", ".tgz")) and "cifar" in path.name else None
    for folder in (path / name for name in _CIFAR_FOLDERS):
        if (folder / _CIFAR_10[0]).is_file() or all((folder / n).is_file() for n in _CIFAR_FILES[-3:]):
            return folder
    return next((path / name for name in _CIFAR_ARCHIVES if (path / name).is_file()), None)


def read_cifar(path: Path) -> _Set:
    """Reads CIFAR-10 or CIFAR-100: pickles of Python 2 in a folder or in their archive.

    ``data`` is uint8 (N, 3072), the channels one after the other, each in row order (Krizhevsky, "Learning
    Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html). Nothing
    in the pickles is executed.
    """
    source = find_cifar(path)
    assert source is not None
    if source.is_dir():
        files = {name: (source / name).read_bytes() for name in _CIFAR_FILES if (source / name).is_file()}
    else:
        files = {}
        with tarfile.open(source) as tar:
            for member in tar:
                name, handle = PurePosixPath(member.name).name, tar.extractfile(member)
                if name in _CIFAR_FILES and handle is not None:
                    files[name] = handle.read()
    ten = _CIFAR_10[0] in files

    def load(name: str) -> dict[bytes, Any]:
        content: dict[bytes, Any] = _Unpickler(io.BytesIO(files[name]), encoding="bytes").load()
        return content

    def part(*names: str) -> _Images:
        batches = [load(name) for name in names]
        flat = np.concatenate([np.asarray(batch[b"data"], dtype=np.uint8) for batch in batches])
        labels = [np.asarray(batch[b"labels" if ten else b"fine_labels"]) for batch in batches]
        return flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.concatenate(labels)

    classes = load("batches.meta")[b"label_names"] if ten else load("meta")[b"fine_label_names"]
    train = part(*(_CIFAR_10 if ten else ("train",)))
    return _checked([name.decode() for name in classes], train, part("test_batch" if ten else "test"))


def read_npz(path: Path) -> _Set:
    """Reads one ``.npz`` with the keys of Keras (``x_train``) or of MedMNIST (``train_images``).

    Images are uint8, (N, H, W, 3), (N, 3, H, W), or grey (N, H, W) or (N, H, W, 1); labels are (N,) or (N,
    1). Class names are in the key ``classes``, else they are the numbers. Pickled objects are refused.
    """
    with np.load(path, allow_pickle=False) as content:
        keys = next((keys for keys in _NPZ_KEYS if all(key in content for key in keys)), None)
        if keys is None:
            raise ValueError(f"it has the keys {', '.join(content.files)}")
        x_train, y_train, x_test, y_test = (content[key] for key in keys)
        names = [str(name) for name in content["classes"]] if "classes" in content else None
    train, test = ((_rgb(x), _labels(y)) for x, y in ((x_train, y_train), (x_test, y_test)))
    return _checked(names, train, test)


def _rgb(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images of any layout as (N, S, S, 3)."""
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
    return x


def _labels(y: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    if y.ndim == 0 or y.size != len(y) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels are {y.dtype} of shape {y.shape}, not whole numbers (N,)")
    return y.reshape(-1)


def is_mosaics(path: Path) -> bool:
    """Whether the folder holds mosaics."""
    return (path / "labels.npz").is_file() and bool(_mosaics(path, "train"))


def read_mosaics(path: Path) -> _Set:
    """Reads lossless mosaics: ``train_0.webp`` …, ``test.webp``, ``labels.npz``, ``meta.json``.

    A mosaic is square rows of square images, filled row by row; its grid is 100 × 100 unless ``meta.json``
    says otherwise (``grid``), the class names are there too (``fine_label_names``, ``label_names`` or
    ``classes``).
    """
    meta_file = path / "meta.json"
    meta = parse_json(meta_file.read_text(encoding="utf-8")) if meta_file.is_file() else {}
    grid = int(meta.get("grid", 100))
    names = next((meta[k] for k in ("fine_label_names", "label_names", "classes") if k in meta), None)
    with np.load(path / "labels.npz", allow_pickle=False) as y:
        train, test = ((_tiles(_mosaics(path, part), grid), y[part]) for part in ("train", "test"))
        return _checked(names, train, test)


def _mosaics(path: Path, part: str) -> list[Path]:
    """The mosaics of a part, by their number."""
    found = [item for suffix in ("webp", "png") for item in path.glob(f"{part}*.{suffix}")]
    digits = {item: item.stem.rpartition("_")[2] for item in found}
    return sorted(found, key=lambda item: int(digits[item]) if digits[item].isdecimal() else -1)


def _tiles(files: Sequence[Path], grid: int) -> NDArray[np.uint8]:
    parts = []
    for file in files:
        with Image.open(file) as picture:
            width, height = picture.size
            if width * height > _MAX_PIXELS or width % grid or height % (width // grid):
                raise ValueError(f"{file.name} of {width} × {height} pixels is no mosaic of {grid} columns")
            pixels = np.asarray(picture.convert("RGB"))
        side = width // grid
        tiles = pixels.reshape(height // side, side, grid, side, 3).transpose(0, 2, 1, 3, 4)
        parts.append(tiles.reshape(-1, side, side, 3))
    if not parts:
        raise ValueError("there is no test mosaic")
    return np.concatenate(parts)
