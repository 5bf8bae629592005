"""Pictures in files that are decoded when they are needed: image folders and WebDataset shards."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_TEST_NAMES = ("test", "val", "validation")
_TRAIN_SHARD = re.compile(r"(^|[^a-z])train", re.IGNORECASE)
_TEST_SHARD = re.compile(r"(^|[^a-z])(test|val|validation)([^a-z]|$)", re.IGNORECASE)
_LABEL_KEYS = ("label", "cls", "class", "target")
_THREADS = 8


@dataclass(frozen=True)
class PicturePart:
    """Pictures of any size, each decoded when it is needed.

    Attributes:
        folder: Folder of the image set.
        files: File of each picture, below ``folder``.
        names: Name of each picture in messages; no absolute path.
        y: Class indices, int64 (N,).
        spans: Byte offset and size of each picture in its file, int64 (N, 2); None = the whole file.
    """

    folder: Path
    files: Sequence[str]
    names: Sequence[str]
    y: NDArray[np.int64]
    spans: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.int64], y: NDArray[np.int64] | None = None) -> PicturePart:
        """The part of these rows, with other class indices if they are given."""
        files, names = ([held[row] for row in rows] for held in (self.files, self.names))
        spans = None if self.spans is None else self.spans[rows]
        return replace(self, files=files, names=names, y=self.y[rows] if y is None else y, spans=spans)

    def read(self, row: int) -> Image.Image:
        """Decodes a picture as RGB."""
        with (self.folder / self.files[row]).open("rb") as handle:
            source: io.BufferedReader | io.BytesIO = handle
            if self.spans is not None:
                offset, size = self.spans[row].tolist()
                handle.seek(offset)
                source = io.BytesIO(handle.read(size))
            with Image.open(source) as picture:
                return picture.convert("RGB")

    def digest(self) -> str:
        """A hash of names and labels."""
        content = hashlib.sha256(self.y.tobytes())
        content.update("\n".join(self.names).encode())
        return content.hexdigest()[:16]


_Set = tuple[tuple[str, ...], PicturePart, PicturePart]


def is_folders(path: Path) -> bool:
    """Whether the folder holds ``train/`` with folders inside."""
    return (path / "train").is_dir() and bool(_classes(path / "train"))


def read_folders(path: Path) -> _Set:
    """Lists image folders in ImageNet's style: classes (the folders of ``train/``, sorted) and both parts.

    The test part is ``test/`` where it is sorted by class, else ``val/`` or ``validation/``. No picture is
    opened.

    Raises:
        InputError: A part is missing or empty, or the test part has a class that the training part lacks.
    """
    classes = _classes(path / "train")
    test = next((name for name in _TEST_NAMES if (path / name).is_dir() and _classes(path / name)), None)
    if test is None:
        raise InputError(
            f"{path} has train/ but neither test/ nor val/ with one folder a class; the evaluation needs one."
        )
    unknown = sorted(set(_classes(path / test)) - set(classes))
    if unknown:
        raise InputError(f"{path / test} has the class {unknown[0]!r}, which train/ lacks.")
    return tuple(classes), _folder_part(path, "train", classes), _folder_part(path, test, classes)


def _classes(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if item.is_dir())


def _folder_part(path: Path, name: str, classes: Sequence[str]) -> PicturePart:
    from torchvision.datasets.folder import make_dataset

    def is_picture(file: str) -> bool:
        return file.lower().endswith(_SUFFIXES) and not Path(file).name.startswith(".")

    index = {label: number for number, label in enumerate(classes)}
    found = make_dataset(path / name, index, is_valid_file=is_picture, allow_empty=True)
    if not found:
        raise InputError(f"{path / name} holds no picture ({', '.join(_SUFFIXES)}).")
    listed = sorted((number, Path(file).relative_to(path).as_posix()) for file, number in found)
    names = [file for _, file in listed]
    return PicturePart(path, names, names, np.array([number for number, _ in listed], dtype=np.int64))


def is_shards(path: Path) -> bool:
    """Whether the folder holds tar files whose names tell training from test."""
    return bool(_shards(path, _TRAIN_SHARD))


def read_shards(path: Path) -> _Set:
    """Indexes WebDataset shards: training part (``*train*.tar``) and test part (``*val*`` or ``*test*``).

    A shard is a plain tar file, so the place of every picture in it is noted once: then each picture is read
    by itself, an epoch's order is a true shuffle over all shards, every picture comes exactly once, and a run
    is resumed at any step. A stream through a shuffle buffer has none of that. Format: the WebDataset
    specification (https://github.com/webdataset/webdataset): files with the same name up to the first dot are
    a sample, ``KEY.jpg`` and ``KEY.cls`` or ``KEY.json``. Only headers and labels are read, not the pictures.
    Class names are the lines of ``classes.txt`` where there is one, else the numbers.

    Raises:
        InputError: A part is missing, a shard is damaged or compressed, or a picture has no label.
    """
    shards = [_shards(path, pattern) for pattern in (_TRAIN_SHARD, _TEST_SHARD)]
    if not all(shards):
        raise InputError(
            f"{path} has training shards but none named *test*.tar or *val*.tar; the evaluation needs them."
        )
    train, test = (_shard_part(path, part) for part in shards)
    count = int(max(train.y.max(), test.y.max())) + 1
    listed = path / "classes.txt"
    names = listed.read_text(encoding="utf-8").split("\n") if listed.is_file() else []
    names = [name.strip() for name in names if name.strip()]
    if names and len(names) < count:
        raise InputError(f"{listed} names {len(names)} classes, but labels go up to {count - 1}.")
    return tuple(names or map(str, range(count))), train, test


def _shards(path: Path, pattern: re.Pattern[str]) -> list[str]:
    files = sorted(path.rglob("*.tar"))
    return [name for name in (file.relative_to(path).as_posix() for file in files) if pattern.search(name)]


def _shard_part(path: Path, shards: Sequence[str]) -> PicturePart:
    with ThreadPoolExecutor(_THREADS) as threads:
        listed = list(threads.map(_list_shard, [path / shard for shard in shards]))
    files = [shard for shard, samples in zip(shards, listed, strict=True) for _ in samples]
    samples = [sample for part in listed for sample in part]
    if not samples:
        raise InputError(f"The shards {shards[0]} … in {path} hold no labelled picture.")
    names = [f"{file}:{key}" for file, (key, *_) in zip(files, samples, strict=True)]
    numbers = np.array([sample[1:] for sample in samples], dtype=np.int64)
    return PicturePart(path, files, names, numbers[:, 0].copy(), numbers[:, 1:])


def _list_shard(shard: Path) -> list[tuple[str, int, int, int]]:
    """Key, label, offset and size of each picture."""
    try:
        # "r:" reads no compressed tar: a picture in one has no place of its own.
        with tarfile.open(shard, "r:") as tar:
            samples = list(_samples(tar))
            # A damaged header ends the listing as the end of the archive does.
            tar.fileobj.seek(tar.offset)
            if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
                raise ValueError(f"what stands at byte {tar.offset} is no member of a tar")
            return samples
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
        raise InputError(
            f"The shard {shard} can't be indexed ({error}); it must be an uncompressed tar of KEY.jpg with "
            "KEY.cls or KEY.json."
        ) from error


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, int, int, int]]:
    pictures: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    for member in tar:
        handle = tar.extractfile(member) if member.isfile() else None
        if handle is None:
            continue
        name = PurePosixPath(member.name)
        stem, _, suffix = name.name.partition(".")
        key = str(name.parent / stem)
        if f".{suffix.lower()}" in _SUFFIXES:
            if key in pictures:
                raise ValueError(f"the sample {key} has two pictures")
            pictures[key] = member
        elif suffix in ("cls", "json"):
            text = handle.read().decode()
            found = [int(text)] if suffix == "cls" else map(parse_json(text).get, _LABEL_KEYS)
            label = next((value for value in found if isinstance(value, int)), None)
            if label is not None and label < 0:
                raise ValueError(f"the label {label} is negative")
            if label is not None:
                labels.setdefault(key, label)
    for key, member in pictures.items():
        if key not in labels:
            raise ValueError(f"the picture {key} has no label")
        yield key, labels[key], member.offset_data, member.size
