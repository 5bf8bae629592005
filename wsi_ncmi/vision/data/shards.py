"""WebDataset shards (``*.tar`` of ``KEY.jpg`` and ``KEY.cls`` or ``KEY.json``), read by position.

A shard is a plain tar file, so the place of every picture in it can be noted once: then each picture is read
by itself, an epoch's order is a true shuffle over all shards, every picture comes exactly once, and a run is
resumed at any step. A stream through a shuffle buffer has none of that. Format: the WebDataset specification
(https://github.com/webdataset/webdataset): files with the same name up to the first dot are a sample.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision.data.folders import PICTURE_SUFFIXES
from wsi_ncmi.vision.data.parts import PicturePart

__all__ = ["is_shards", "read_shards"]

_TRAIN = re.compile(r"(^|[^a-z])train", re.IGNORECASE)
_TEST = re.compile(r"(^|[^a-z])(test|val|validation)([^a-z]|$)", re.IGNORECASE)
_LABEL_KEYS = ("label", "cls", "class", "target")
_THREADS = 8


@dataclass(frozen=True)
class _Sample:
    key: str
    shard: int
    offset: int
    size: int
    label: int


@dataclass(frozen=True)
class _Reader:
    """Decodes the picture at a position of the index."""

    shards: tuple[Path, ...]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def __call__(self, row: int) -> Image.Image:
        descriptor = os.open(self.shards[self.shard[row]], os.O_RDONLY)
        try:
            content = os.pread(descriptor, int(self.size[row]), int(self.offset[row]))
        finally:
            os.close(descriptor)
        with Image.open(io.BytesIO(content)) as picture:
            return picture.convert("RGB")


def is_shards(path: Path) -> bool:
    """Whether the folder holds tar files whose names tell training from test."""
    return bool(_shards(path, _TRAIN))


def read_shards(path: Path) -> tuple[tuple[str, ...], PicturePart, PicturePart]:
    """Indexes the shards: classes, training part (``*train*.tar``) and test part (``*val*`` or ``*test*``).

    Only headers and labels are read, not the pictures. Class names are the lines of ``classes.txt`` where
    there is one, else the numbers.

    Raises:
        InputError: A part is missing, a shard is damaged or compressed, or a picture has no label.
    """
    train, test = (_index(path, _shards(path, pattern)) for pattern in (_TRAIN, _TEST))
    if test is None or train is None:
        raise InputError(
            f"{path} has training shards but none named *test*.tar or *val*.tar; the evaluation needs them."
        )
    count = int(max(train.y.max(), test.y.max())) + 1
    listed = path / "classes.txt"
    names = listed.read_text(encoding="utf-8").split("\n") if listed.is_file() else []
    names = [name.strip() for name in names if name.strip()]
    if names and len(names) < count:
        raise InputError(f"{listed} names {len(names)} classes, but labels go up to {count - 1}.")
    return tuple(names or map(str, range(count))), train, test


def _shards(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(item for item in path.rglob("*.tar") if pattern.search(item.relative_to(path).as_posix()))


def _index(path: Path, shards: Sequence[Path]) -> PicturePart | None:
    if not shards:
        return None
    with ThreadPoolExecutor(_THREADS) as threads:
        listed = list(threads.map(_list_shard, range(len(shards)), shards))
    samples = [sample for part in listed for sample in part]
    if not samples:
        raise InputError(f"The shards {shards[0].name} … in {path} hold no labelled picture.")
    reader = _Reader(
        tuple(shards),
        np.array([sample.shard for sample in samples], dtype=np.int32),
        np.array([sample.offset for sample in samples], dtype=np.int64),
        np.array([sample.size for sample in samples], dtype=np.int64),
    )
    names = [f"{shards[sample.shard].relative_to(path).as_posix()}:{sample.key}" for sample in samples]
    y = np.array([sample.label for sample in samples], dtype=np.int64)
    return PicturePart(names, y, reader, np.arange(len(samples), dtype=np.int64))


def _list_shard(number: int, shard: Path) -> list[_Sample]:
    try:
        # "r:" reads no compressed tar: a picture in one has no place of its own.
        with tarfile.open(shard, "r:") as tar:
            samples = list(_samples(number, tar))
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


def _samples(number: int, tar: tarfile.TarFile) -> Iterator[_Sample]:
    pictures: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    for member in tar:
        if not member.isfile():
            continue
        name = PurePosixPath(member.name)
        stem, _, suffix = name.name.partition(".")
        key = str(name.parent / stem)
        if f".{suffix.lower()}" in PICTURE_SUFFIXES:
            if key in pictures:
                raise ValueError(f"the sample {key} has two pictures")
            pictures[key] = member
        elif suffix in ("cls", "json"):
            handle = tar.extractfile(member)
            assert handle is not None
            label = _label(suffix, handle.read())
            if label is not None:
                labels.setdefault(key, label)
    for key, member in pictures.items():
        if key not in labels:
            raise ValueError(f"the picture {key} has no label")
        yield _Sample(key, number, member.offset_data, member.size, labels[key])


def _label(suffix: str, content: bytes) -> int | None:
    if suffix == "cls":
        label = int(content.decode())
    else:
        found = json.loads(content)
        values = [found[name] for name in _LABEL_KEYS if isinstance(found.get(name), int)]
        if not values:
            return None
        label = values[0]
    if label < 0:
        raise ValueError(f"the label {label} is negative")
    return label
