"""Augmentation on the device: one gather a batch, from draws that depend on seed, epoch and step alone.

Shift, mirror and turn are whole-pixel maps, so the three are composed into one table of source pixels. The
draws are made on the CPU (a few numbers an image) and are the same on every device and in every split of a
batch over processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wsi_ncmi.training.seeding import derive_seed
from wsi_ncmi.vision.config import ImageDataConfig

__all__ = ["Augmentation", "Draws"]


@dataclass(frozen=True)
class Draws:
    """What was drawn for the images of a batch.

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
        options: What is done in training.
        mean: Mean of each channel on the scale 0–255, (3,).
        std: Its standard deviation, (3,).
        device: Where images come from and go to.
        channels_last: Memory layout of the result.
    """

    def __init__(
        self, options: ImageDataConfig, mean: Tensor, std: Tensor, device: torch.device, channels_last: bool
    ) -> None:
        self._options = options
        self._mean = mean.float().to(device)
        self._scale = (1.0 / std.float()).to(device)
        self._device = device
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def draw(self, count: int, image_px: int, seed: int, epoch: int, step: int) -> Draws:
        """Draws for the ``count`` images of a step."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch, step))
        pad = self._options.crop_padding
        # Each is drawn whether it is in use or not: switching one on leaves the others as they were.
        shift = torch.randint(-pad, pad + 1, (count, 2), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5
        angle = (torch.rand(count, generator=generator) * 2 - 1) * self._options.rotation_deg
        hole = torch.randint(0, image_px, (count, 2), generator=generator)
        return Draws(shift, mirrored if self._options.flip else torch.zeros_like(mirrored), angle, hole)

    def augment(self, images: Tensor, draws: Draws) -> Tensor:
        """Augments and normalises uint8 images (B, H, W, 3) on the device: float32 (B, 3, H, W)."""
        rows, columns, inside = self._sources(draws, images.shape[1], images.shape[2])
        picked = torch.arange(len(images), device=images.device).view(-1, 1, 1)
        pixels = images[picked, rows, columns]
        if inside is not None:
            pixels = pixels * inside.unsqueeze(-1)
        x = self._normalised(pixels)
        size = self._options.cutout_px
        if size:
            x = torch.where(self._hole(draws, size, *images.shape[1:3]), 0.0, x)
        return self._laid_out(x)

    def plain(self, images: Tensor) -> Tensor:
        """Normalises uint8 images (B, H, W, 3) on the device without augmentation: float32 (B, 3, H, W)."""
        return self._laid_out(self._normalised(images))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self._mean) * self._scale

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2).contiguous(memory_format=self._format)

    def _sources(self, draws: Draws, height: int, width: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Source row and column of every pixel, (B, H or 1, W or 1), and which lie inside the picture."""
        shift = draws.shift.to(self._device, non_blocking=True)
        mirrored = draws.mirrored.to(self._device, non_blocking=True)
        rows = torch.arange(height, device=self._device).view(1, -1, 1)
        columns = torch.arange(width, device=self._device).view(1, 1, -1)
        inside: Tensor | None = None
        if self._options.rotation_deg:
            rows, columns = self._turned(draws, rows, columns, height, width)
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        columns = torch.where(mirrored.view(-1, 1, 1), width - 1 - columns, columns)
        if self._options.crop_padding:
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

    def _hole(self, draws: Draws, size: int, height: int, width: int) -> Tensor:
        hole = draws.hole.to(self._device, non_blocking=True)
        rows = torch.arange(height, device=self._device).view(1, -1, 1, 1)
        columns = torch.arange(width, device=self._device).view(1, 1, -1, 1)
        top, left = (hole[:, i].view(-1, 1, 1, 1) - size // 2 for i in (0, 1))
        return (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
