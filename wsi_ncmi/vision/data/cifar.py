"""CIFAR-10 and CIFAR-100 as published: pickles of Python 2, in a folder or still in their archive.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, "Learning Multiple Layers of Features from
Tiny Images", 2009): ``data`` is uint8 (N, 3072), the channels one after the other, each in row order.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision.data.parts import ArrayPart

__all__ = ["is_cifar", "read_cifar"]

_TEN = tuple(f"data_batch_{i}" for i in range(1, 6))
_FOLDERS = ("", "cifar-10-batches-py", "cifar-100-python")
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz")
# What the pickles are made of; anything else in them is refused instead of being executed.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError,
               pickle.UnpicklingError, tarfile.TarError)  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def is_cifar(path: Path) -> bool:
    """Whether the path is (or holds) CIFAR-10 or CIFAR-100 as published."""
    if path.is_file():
        return path.name.endswith((".tar.gz", ".tgz")) and "cifar" in path.name
    return _folder(path) is not None or _archive(path) is not None


def read_cifar(path: Path) -> tuple[tuple[str, ...], ArrayPart, ArrayPart]:
    """Reads classes, training and test part.

    Args:
        path: The archive, its unpacked folder, or a folder that holds either.

    Raises:
        InputError: A file is missing or isn't what was published. Nothing in it is executed.
    """
    try:
        folder = _folder(path) if path.is_dir() else None
        if folder is not None:
            return _assemble([item.name for item in folder.iterdir()], lambda n: (folder / n).read_bytes())
        archive = path if path.is_file() else _archive(path)
        assert archive is not None
        with tarfile.open(archive) as tar:
            members = {PurePosixPath(item.name).name: item for item in tar.getmembers() if item.isfile()}

            def read(name: str) -> bytes:
                handle = tar.extractfile(members[name])
                assert handle is not None
                return handle.read()

            return _assemble(list(members), read)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} isn't CIFAR-10 or CIFAR-100 as published ({reason}); get cifar-10-python.tar.gz or "
            "cifar-100-python.tar.gz again."
        ) from error


def _folder(path: Path) -> Path | None:
    for name in _FOLDERS:
        folder = path / name
        if (folder / _TEN[0]).is_file() or all((folder / n).is_file() for n in ("train", "test", "meta")):
            return folder
    return None


def _archive(path: Path) -> Path | None:
    return next((path / name for name in _ARCHIVES if (path / name).is_file()), None)


def _assemble(
    names: Sequence[str], read: Callable[[str], bytes]
) -> tuple[tuple[str, ...], ArrayPart, ArrayPart]:
    def load(name: str) -> dict[bytes, Any]:
        content: dict[bytes, Any] = _Unpickler(io.BytesIO(read(name)), encoding="bytes").load()
        return content

    if _TEN[0] in names:
        train, test, meta, key, labels = _TEN, ("test_batch",), "batches.meta", b"label_names", b"labels"
    else:
        train, test, meta, key, labels = ("train",), ("test",), "meta", b"fine_label_names", b"fine_labels"
    classes = tuple(name.decode() for name in load(meta)[key])

    def part(files: Sequence[str]) -> ArrayPart:
        batches = [load(name) for name in files]
        flat = np.concatenate([np.asarray(batch[b"data"], dtype=np.uint8) for batch in batches])
        y = np.concatenate([np.asarray(batch[labels], dtype=np.int64) for batch in batches])
        pixels = np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        if len(pixels) != len(y) or y.min() < 0 or y.max() >= len(classes):
            raise ValueError(f"{len(pixels)} images and {len(y)} labels of {len(classes)} classes")
        return ArrayPart(pixels, y)

    return classes, part(train), part(test)
