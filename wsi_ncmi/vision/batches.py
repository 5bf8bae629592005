"""Batches of images on the device: read from memory or decoded by worker processes, and augmented there.

Shift, mirror and turn are whole-pixel maps, so the three are composed into one table of source pixels: one
gather a batch. The draws depend on seed, epoch and step alone. They are made on the CPU (a few numbers an
image) and are the same on every device and in every split of a batch over processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training import derive_seed
from wsi_ncmi.vision.arrays import ArrayPart
from wsi_ncmi.vision.config import ImageDataConfig
from wsi_ncmi.vision.data import ImagePart
from wsi_ncmi.vision.pictures import PicturePart


@dataclass(frozen=True)
class Draws:
    """Random draws for the images of a batch.

    Attributes:
        shift: Whole pixels down and to the right by which the window moves, int64 (B, 2).
        mirrored: Bool (B,).
        angle: Degrees, counter-clockwise, float32 (B,).
        hole: Row and column of the centre of the cut-out square, int64 (B, 2).
    """

    shift: Tensor
    mirrored: Tensor
    angle: Tensor
    hole: Tensor

    def rows(self, part: slice) -> Draws:
        """The draws of some images."""
        return Draws(self.shift[part], self.mirrored[part], self.angle[part], self.hole[part])


class Augmentation:
    """From uint8 images to normalised network input.

    Args:
        config: The augmentation of training images.
        mean: Mean of each channel on the scale 0–255, (3,).
        std: Its standard deviation, (3,).
        device: Where images come from and go to.
        channels_last: Memory layout of the result.
    """

    def __init__(
        self, config: ImageDataConfig, mean: Tensor, std: Tensor, device: torch.device, channels_last: bool
    ) -> None:
        self._config = config
        self._mean = mean.float().to(device)
        self._scale = (1.0 / std.float()).to(device)
        self._device = device
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def draw(self, count: int, image_px: int, seed: int, epoch: int, step: int) -> Draws:
        """Draws for the ``count`` images of a step."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch, step))
        pad, flip = self._config.crop_padding, self._config.flip
        # Each is drawn whether it is used or not: switching one on leaves the others as they were.
        shift = torch.randint(-pad, pad + 1, (count, 2), generator=generator)
        mirrored = (torch.rand(count, generator=generator) < 0.5) & flip
        angle = (torch.rand(count, generator=generator) * 2 - 1) * self._config.rotation_deg
        hole = torch.randint(0, image_px, (count, 2), generator=generator)
        return Draws(shift, mirrored, angle, hole)

    def augment(self, images: Tensor, draws: Draws) -> Tensor:
        """Augments and normalises uint8 images (B, H, W, 3) on the device: float32 (B, 3, H, W)."""
        rows, columns, inside = self._sources(draws, images.shape[1], images.shape[2])
        picked = torch.arange(len(images), device=images.device).view(-1, 1, 1)
        pixels = images[picked, rows, columns]
        if inside is not None:
            pixels = pixels * inside.unsqueeze(-1)
        x = self._normalised(pixels)
        if self._config.cutout_px:
            x = torch.where(self._hole(draws, *images.shape[1:3]), 0.0, x)
        return x.permute(0, 3, 1, 2).contiguous(memory_format=self._format)

    def plain(self, images: Tensor) -> Tensor:
        """Normalises uint8 images (B, H, W, 3) on the device without augmentation: float32 (B, 3, H, W)."""
        return self._normalised(images).permute(0, 3, 1, 2).contiguous(memory_format=self._format)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self._mean) * self._scale

    def _sources(self, draws: Draws, height: int, width: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Source row and column of every pixel, (B, H or 1, W or 1), and which lie inside the picture."""
        shift = draws.shift.to(self._device, non_blocking=True)
        mirrored = draws.mirrored.to(self._device, non_blocking=True)
        rows = torch.arange(height, device=self._device).view(1, -1, 1)
        columns = torch.arange(width, device=self._device).view(1, 1, -1)
        inside: Tensor | None = None
        if self._config.rotation_deg:
            rows, columns = self._turned(draws, rows, columns, height, width)
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        columns = torch.where(mirrored.view(-1, 1, 1), width - 1 - columns, columns)
        if self._config.crop_padding:
            rows = rows + shift[:, 0].view(-1, 1, 1)
            columns = columns + shift[:, 1].view(-1, 1, 1)
            moved = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            inside = moved if inside is None else inside & moved
        return rows.clamp(0, height - 1), columns.clamp(0, width - 1), inside

    def _turned(
        self, draws: Draws, rows: Tensor, columns: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        radians = (draws.angle * (math.pi / 180)).to(self._device, non_blocking=True).view(-1, 1, 1)
        cos, sin = radians.cos(), radians.sin()
        y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
        # Where a pixel comes from: turned the other way round. Rows point down.
        source_x = cos * x - sin * y + (width - 1) / 2
        source_y = sin * x + cos * y + (height - 1) / 2
        return source_y.round().long(), source_x.round().long()

    def _hole(self, draws: Draws, height: int, width: int) -> Tensor:
        size = self._config.cutout_px
        hole = draws.hole.to(self._device, non_blocking=True)
        rows = torch.arange(height, device=self._device).view(1, -1, 1, 1)
        columns = torch.arange(width, device=self._device).view(1, 1, -1, 1)
        top, left = (hole[:, i].view(-1, 1, 1, 1) - size // 2 for i in (0, 1))
        return (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows of every step of an epoch, int64 (steps, batch_size): a pure function of seed and epoch.

    The rest that doesn't fill a batch is left out, another one each epoch: all steps have one shape.
    """
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
    steps = count // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int64)


_Batches = Iterator[tuple[Tensor, Tensor]]


class Batches(ABC):
    """Batches of one part, for one process of a run.

    Attributes:
        y: All labels, int64 (N,), on the device.
        image_px: Side of the images.
    """

    def __init__(self, part: ImagePart, augmentation: Augmentation, device: torch.device, px: int) -> None:
        self._augmentation, self._device, self.image_px = augmentation, device, px
        self._rows_on = torch.device("cpu")
        self.y = torch.from_numpy(part.y).to(device)

    def training(self, order: NDArray[np.int64], seed: int, epoch: int, first_step: int) -> _Batches:
        """Augmented batches of an epoch from ``first_step`` on: this process's share of each.

        Args:
            order: Rows of every step, of :func:`epoch_order`.
            seed: The run's seed.
            epoch: The epoch.
            first_step: Steps to leave out at the beginning.

        Yields:
            Images float32 (b, 3, H, W) and labels (b,).
        """
        size = order.shape[1]
        share = distributed.share_of(size)
        chosen = torch.from_numpy(order)[first_step:, share].to(self._rows_on)
        for step, (images, rows) in enumerate(self._read(chosen, seed, epoch), start=first_step):
            draws = self._augmentation.draw(size, self.image_px, seed, epoch, step).rows(share)
            yield self._augmentation.augment(images, draws), self.y[rows]

    def plain(self, rows: NDArray[np.int64], size: int) -> Iterator[Tensor]:
        """Images of rows, in their order and without augmentation, ``size`` at a time."""
        for images, _ in self._read(torch.split(torch.from_numpy(rows).to(self._rows_on), size)):
            yield self._augmentation.plain(images)

    @abstractmethod
    def _read(self, batches: Iterable[Tensor], seed: int = -1, epoch: int = -1) -> _Batches:
        """Images uint8 (b, H, W, 3) of the rows of each batch, and the rows, both on the device."""


class DeviceBatches(Batches):
    """A set in memory: one gather and one augmentation a batch, nothing copied from the host but the draws.

    Args:
        part: The images.
        augmentation: Their augmentation.
        device: Where the batches go.
        place: ``device`` or ``host``, where the pixels lie.
    """

    def __init__(self, part: ArrayPart, augmentation: Augmentation, device: torch.device, place: str) -> None:
        super().__init__(part, augmentation, device, part.pixels.shape[1])
        self._pixels = torch.from_numpy(part.pixels)
        if place == "device":
            try:
                self._pixels = self._pixels.to(device)
            except torch.cuda.OutOfMemoryError as error:
                raise InputError(
                    f"The images ({self._pixels.nbytes / 2**30:.1f} GiB) don't fit on the device; set "
                    "data.place to 'host'."
                ) from error
        self._rows_on = self._pixels.device

    def _read(self, batches: Iterable[Tensor], seed: int = -1, epoch: int = -1) -> _Batches:
        for rows in batches:
            yield self._pixels[rows].to(self._device, non_blocking=True), rows.to(self._device)


class PictureBatches(Batches):
    """Pictures in files: decoded, cropped and resized by worker processes, the rest on the device.

    The crop is drawn from seed, epoch and the picture's position: it doesn't depend on which process decodes
    it, nor on how many there are.

    Args:
        part: The pictures.
        augmentation: Their augmentation on the device.
        device: Where the batches go.
        config: Size and crops.
        workers: Processes that decode; 0 = this one.
    """

    def __init__(
        self,
        part: PicturePart,
        augmentation: Augmentation,
        device: torch.device,
        config: ImageDataConfig,
        workers: int,
    ) -> None:
        assert config.image_px is not None
        super().__init__(part, augmentation, device, config.image_px)
        self._wanted: list[list[tuple[int, int, int]]] = []  # (row, seed, epoch) of the next pass
        self._loader = DataLoader(
            _Pictures(part, config),
            batch_sampler=self._wanted,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            # The processes stay from epoch to epoch: to start one takes seconds.
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
        )

    def _read(self, batches: Iterable[Tensor], seed: int = -1, epoch: int = -1) -> _Batches:
        self._wanted[:] = [[(row, seed, epoch) for row in rows.tolist()] for rows in batches]
        for images, rows, problem in self._loader:
            if problem:
                raise TrainingError(problem)
            yield images.to(self._device, non_blocking=True), rows.to(self._device, non_blocking=True)


class _Pictures(Dataset[tuple[Tensor, int, str]]):
    def __init__(self, part: PicturePart, config: ImageDataConfig) -> None:
        self._part, self._config = part, config

    def __getitem__(self, wanted: tuple[int, int, int]) -> tuple[Tensor, int, str]:
        row, seed, epoch = wanted
        config = self._config
        assert config.image_px is not None
        size = (config.image_px, config.image_px)
        try:
            picture = self._part.read(row)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            # An exception of a worker process would arrive with its whole traceback as the message.
            reason = " ".join(str(error).split()) or type(error).__name__
            problem = (
                f"The picture {self._part.names[row]} can't be decoded ({reason}); replace it or take it out."
            )
            return torch.zeros(*size, 3, dtype=torch.uint8), row, problem
        if epoch < 0:
            box = _centre_crop(picture.size, config.eval_crop)
        else:
            generator = np.random.default_rng(derive_seed(seed, "crop", epoch, row))
            box = random_crop(picture.size, config.crop_scale, generator)
        small = picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=None)
        return torch.from_numpy(np.array(small)), row, ""


def _collate(items: Sequence[tuple[Tensor, int, str]]) -> tuple[Tensor, Tensor, str]:
    images, rows, problems = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(rows), next(filter(None, problems), "")


_Box = tuple[float, float, float, float]


def _centre_crop(size: tuple[int, int], share: float) -> _Box:
    side = min(size) * share
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def random_crop(size: tuple[int, int], scale: float, generator: np.random.Generator) -> _Box:
    """Draws the box of a random resized crop (Szegedy et al., arXiv 1409.4842; the usual ImageNet recipe).

    Args:
        size: Width and height of the picture.
        scale: Smallest share of its area; the aspect ratio is 3/4 to 4/3.
        generator: Where the numbers come from.

    Returns:
        Left, top, right and bottom, px.
    """
    width, height = size
    for _ in range(10):
        area = width * height * generator.uniform(scale, 1.0)
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
