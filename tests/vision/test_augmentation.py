"""Shift, mirror, turn and cut-out in one gather equal torchvision's steps one after the other."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as reference

from wsi_ncmi.vision import ImageDataConfig
from wsi_ncmi.vision.batches import Augmentation, Draws

MEAN, STD = torch.tensor([120.0, 110.0, 90.0]), torch.tensor([60.0, 50.0, 70.0])


def make(**options):
    return Augmentation(ImageDataConfig(**options), MEAN, STD, torch.device("cpu"), channels_last=True)


def images(count=6, side=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


def slow(image, shift, mirrored, angle, pad):
    """One image through torchvision: uint8 (H, W, 3) to uint8 (3, H, W)."""
    x = image.permute(2, 0, 1)
    side = x.shape[-1]
    x = reference.crop(reference.pad(x, pad), pad + int(shift[0]), pad + int(shift[1]), side, side)
    x = reference.hflip(x) if mirrored else x
    return reference.rotate(x, float(angle)) if angle else x


def normalised(x):
    return (x.float() - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


@pytest.mark.parametrize(
    "options", [{"crop_padding": 4}, {"crop_padding": 0}, {"crop_padding": 3, "flip": False}]
)
def test_shift_and_mirror_equal_torchvision(options):
    augmentation, pixels = make(**options), images()
    draws = augmentation.draw(len(pixels), 32, seed=5, epoch=2, step=7)
    x = augmentation.augment(pixels, draws)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    for i, image in enumerate(pixels):
        expected = slow(image, draws.shift[i], draws.mirrored[i], 0.0, options["crop_padding"])
        torch.testing.assert_close(x[i], normalised(expected))


@pytest.mark.parametrize("side", [31, 32])
def test_turns_equal_torchvision(side):
    augmentation, pixels = make(crop_padding=4, rotation_deg=15), images(8, side)
    draws = augmentation.draw(8, side, seed=5, epoch=0, step=0)
    assert draws.angle.abs().max() <= 15
    assert draws.angle.abs().min() > 0.01
    x = augmentation.augment(pixels, draws)
    for i, image in enumerate(pixels):
        expected = normalised(slow(image, draws.shift[i], draws.mirrored[i], draws.angle[i], 4))
        # A source that falls in the middle between two pixels may be rounded the other way.
        same = torch.isclose(x[i], expected, atol=1e-4).all(dim=0)
        assert same.double().mean() > 0.995


def test_the_cut_out_square_has_the_mean_colour():
    augmentation = make(crop_padding=0, flip=False, cutout_px=8)
    draws = Draws(
        torch.zeros(1, 2, dtype=torch.int64), torch.tensor([False]), torch.zeros(1), torch.tensor([[0, 20]])
    )
    x = augmentation.augment(images(1), draws)[0]
    expected = normalised(images(1)[0].permute(2, 0, 1))
    expected[:, 0:4, 16:24] = 0.0
    torch.testing.assert_close(x, expected)


def test_draws_follow_from_seed_epoch_and_step_alone():
    augmentation = make(crop_padding=4, rotation_deg=10)
    one, same = (augmentation.draw(64, 32, seed=1, epoch=3, step=2) for _ in range(2))
    others = [augmentation.draw(64, 32, *key) for key in ((2, 3, 2), (1, 4, 2), (1, 3, 3))]
    assert torch.equal(one.shift, same.shift)
    assert torch.equal(one.angle, same.angle)
    assert all(not torch.equal(one.shift, other.shift) for other in others)
    # Switching one thing on or off leaves the other draws as they were.
    plain = make(crop_padding=4, flip=False).draw(64, 32, seed=1, epoch=3, step=2)
    assert torch.equal(plain.shift, one.shift)
    assert not plain.mirrored.any()


def test_a_process_gets_its_rows_of_the_draws():
    augmentation = make()
    draws = augmentation.draw(6, 32, seed=1, epoch=0, step=0)
    whole = augmentation.augment(images(), draws)
    part = augmentation.augment(images()[2:4], draws.rows(slice(2, 4)))
    assert torch.equal(whole[2:4], part)


def test_shifts_reach_every_offset_evenly():
    shift = make(crop_padding=2).draw(20000, 32, seed=0, epoch=0, step=0).shift
    counts = torch.bincount((shift[:, 0] + 2) * 5 + shift[:, 1] + 2, minlength=25)
    # Each of 25 offsets is expected 800 times with a standard deviation of 28.
    assert counts.min() > 800 - 6 * 28
    assert counts.max() < 800 + 6 * 28


def test_evaluation_only_normalises():
    x = make(crop_padding=4, cutout_px=8).plain(images(2))
    torch.testing.assert_close(x[1], normalised(images(2)[1].permute(2, 0, 1)))
