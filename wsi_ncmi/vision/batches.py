"""Batches of images on the device: from a set that lies there as a whole, or decoded by worker processes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.training.seeding import derive_seed
from wsi_ncmi.vision.augmentation import Augmentation
from wsi_ncmi.vision.config import ImageDataConfig
from wsi_ncmi.vision.data.parts import ArrayPart, ImagePart, PicturePart
from wsi_ncmi.vision.ranks import Ranks

__all__ = ["Batches", "DeviceBatches", "PictureBatches", "epoch_order", "make_batches"]

Batch = tuple[Tensor, Tensor]


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows of every step of an epoch, int64 (steps, batch_size): a pure function of seed and epoch.

    The rest that doesn't fill a batch is left out, another one each epoch: all steps have one shape.
    """
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
    steps = count // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int64)


class Batches(ABC):
    """Batches of one part, for one process of a run.

    Attributes:
        y: All labels, int64 (N,), on the device.
    """

    y: Tensor

    def __init__(self, part: ImagePart, augmentation: Augmentation, ranks: Ranks) -> None:
        self._augmentation, self._ranks = augmentation, ranks
        self.y = torch.from_numpy(part.y).to(ranks.device)

    @abstractmethod
    def training(self, order: NDArray[np.int64], seed: int, epoch: int, first_step: int) -> Iterator[Batch]:
        """Augmented batches of an epoch from ``first_step`` on: this process's share of each.

        Args:
            order: Rows of every step, of :func:`epoch_order`.
            seed: The run's seed.
            epoch: The epoch.
            first_step: Steps to leave out at the beginning.

        Yields:
            Images float32 (b, 3, H, W) and labels (b,).
        """

    @abstractmethod
    def plain(self, rows: NDArray[np.int64], size: int) -> Iterator[Tensor]:
        """Images of rows, in their order and without augmentation, ``size`` at a time."""


class DeviceBatches(Batches):
    """A set in memory: one gather and one augmentation a batch, nothing copied from the host but the draws.

    Args:
        part: The images.
        augmentation: What happens to them.
        ranks: Which process this is.
        place: ``device`` or ``host``, where the pixels lie.
    """

    def __init__(self, part: ArrayPart, augmentation: Augmentation, ranks: Ranks, place: str) -> None:
        super().__init__(part, augmentation, ranks)
        self._pixels = torch.from_numpy(part.pixels)
        if place == "device":
            try:
                self._pixels = self._pixels.to(ranks.device)
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"The images ({self._pixels.nbytes / 2**30:.1f} GiB) don't fit on the device; set "
                    "data.place to 'host'."
                ) from error

    def training(self, order: NDArray[np.int64], seed: int, epoch: int, first_step: int) -> Iterator[Batch]:
        """See :class:`Batches`."""
        size = order.shape[1]
        mine = self._ranks.part(size)
        rows = torch.from_numpy(order).to(self._pixels.device)
        for step in range(first_step, len(order)):
            draws = self._augmentation.draw(size, self._pixels.shape[1], seed, epoch, step).rows(mine)
            chosen = rows[step, mine]
            images = self._pixels[chosen].to(self._ranks.device, non_blocking=True)
            yield self._augmentation.augment(images, draws), self.y[chosen.to(self.y.device)]

    def plain(self, rows: NDArray[np.int64], size: int) -> Iterator[Tensor]:
        """See :class:`Batches`."""
        for chosen in torch.split(torch.from_numpy(rows).to(self._pixels.device), size):
            yield self._augmentation.plain(self._pixels[chosen].to(self._ranks.device))


class PictureBatches(Batches):
    """Pictures in files: decoded, cropped and resized by worker processes, the rest on the device.

    A random resized crop (Szegedy et al., arXiv 1409.4842, as in the usual ImageNet recipes: share of the
    area from ``crop_scale`` to 1, aspect ratio 3/4 to 4/3) is drawn from seed, epoch and the picture's
    position: it doesn't depend on which process decodes it, nor on how many there are.
    """

    def __init__(
        self,
        part: PicturePart,
        augmentation: Augmentation,
        ranks: Ranks,
        options: ImageDataConfig,
        workers: int,
    ) -> None:
        super().__init__(part, augmentation, ranks)
        assert options.image_px is not None
        self._image_px = options.image_px
        self._wanted = _Wanted()
        self._loader = DataLoader(
            _Pictures(part, options),
            batch_sampler=self._wanted,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=ranks.device.type == "cuda",
            # The processes stay from epoch to epoch: to start one takes seconds.
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
        )

    def training(self, order: NDArray[np.int64], seed: int, epoch: int, first_step: int) -> Iterator[Batch]:
        """See :class:`Batches`."""
        size = order.shape[1]
        mine = self._ranks.part(size)
        wanted = [[(int(row), seed, epoch) for row in rows[mine]] for rows in order[first_step:]]
        for step, (images, rows) in enumerate(self._load(wanted), start=first_step):
            draws = self._augmentation.draw(size, self._image_px, seed, epoch, step).rows(mine)
            yield self._augmentation.augment(images, draws), self.y[rows]

    def plain(self, rows: NDArray[np.int64], size: int) -> Iterator[Tensor]:
        """See :class:`Batches`."""
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        for images, _ in self._load([[(int(row), -1, -1) for row in part] for part in parts]):
            yield self._augmentation.plain(images)

    def _load(self, wanted: list[list[tuple[int, int, int]]]) -> Iterator[Batch]:
        self._wanted.batches = wanted
        for images, rows, problem in self._loader:
            if problem:
                raise TrainingError(problem)
            yield (
                images.to(self._ranks.device, non_blocking=True),
                rows.to(self._ranks.device, non_blocking=True),
            )


class _Wanted(Sampler[list[tuple[int, int, int]]]):
    """The batches of the next pass: lists of (row, seed, epoch)."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Pictures(Dataset[tuple[Tensor, int, str]]):
    def __init__(self, part: PicturePart, options: ImageDataConfig) -> None:
        assert options.image_px is not None
        self._part, self._px = part, options.image_px
        self._scale, self._eval_crop = options.crop_scale, options.eval_crop

    def __getitem__(self, wanted: tuple[int, int, int]) -> tuple[Tensor, int, str]:
        row, seed, epoch = wanted
        empty = torch.zeros(self._px, self._px, 3, dtype=torch.uint8)
        try:
            picture = self._part.read(int(self._part.rows[row]))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            # An exception of a worker process would arrive with its whole traceback as the message.
            reason = " ".join(str(error).split()) or type(error).__name__
            name = self._part.names[row]
            return empty, row, f"The picture {name} can't be decoded ({reason}); replace it or take it out."
        box = self._centre(picture) if epoch < 0 else self._drawn(picture, seed, epoch, row)
        size = (self._px, self._px)
        small = picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=None)
        return torch.from_numpy(np.array(small)), row, ""

    def _centre(self, picture: Image.Image) -> tuple[float, float, float, float]:
        width, height = picture.size
        side = min(width, height) * self._eval_crop
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def _drawn(
        self, picture: Image.Image, seed: int, epoch: int, row: int
    ) -> tuple[float, float, float, float]:
        generator = np.random.default_rng(derive_seed(seed, "crop", epoch, row))
        width, height = picture.size
        for _ in range(10):
            area = width * height * generator.uniform(self._scale, 1.0)
            ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = int(generator.integers(0, width - w + 1))
                top = int(generator.integers(0, height - h + 1))
                return left, top, left + w, top + h
        # A picture so long and narrow that no crop fits: the middle of it, at the nearest allowed ratio.
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def _collate(items: Sequence[tuple[Tensor, int, str]]) -> tuple[Tensor, Tensor, str]:
    problem = next((problem for _, _, problem in items if problem), "")
    return torch.stack([image for image, _, _ in items]), torch.tensor([row for _, row, _ in items]), problem


def make_batches(
    part: ImagePart, augmentation: Augmentation, ranks: Ranks, options: ImageDataConfig, workers: int
) -> Batches:
    """Batches of a part, whatever it is."""
    if isinstance(part, ArrayPart):
        return DeviceBatches(part, augmentation, ranks, options.place)
    return PictureBatches(part, augmentation, ranks, options, workers)
