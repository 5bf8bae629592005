"""Batches: order, shares of processes, pictures decoded by worker processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image

from wsi_ncmi.core.errors import TrainingError
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.vision import ImageDataConfig, open_images
from wsi_ncmi.vision.batches import Augmentation, DeviceBatches, PictureBatches, epoch_order, random_crop

CPU = torch.device("cpu")


@pytest.fixture
def as_process(monkeypatch):
    """Makes this process one of several."""

    def become(rank, world):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: world)

    return become


def augmentation(options):
    return Augmentation(options, torch.zeros(3), torch.ones(3), CPU, channels_last=False)


def test_an_epoch_deals_every_image_at_most_once():
    order = epoch_order(103, 10, seed=1, epoch=0)
    assert order.shape == (10, 10)
    assert len(set(order.ravel().tolist())) == 100
    assert not np.array_equal(order, epoch_order(103, 10, seed=1, epoch=1))
    assert np.array_equal(order, epoch_order(103, 10, seed=1, epoch=0))


@pytest.mark.parametrize("place", ["device", "host"])
def test_processes_share_a_batch(vision, place, as_process):
    part, aug = vision.images.train, augmentation(vision.data)
    order = epoch_order(len(part.y), 16, seed=3, epoch=1)

    def all_of(rank=0, world=1, first_step=0):
        as_process(rank, world)
        return list(DeviceBatches(part, aug, CPU, place).training(order, 3, 1, first_step))

    whole, halves = all_of(), [all_of(rank, 2) for rank in range(2)]
    for (x, y), *parts in zip(whole, *halves, strict=True):
        assert torch.equal(x, torch.cat([part[0] for part in parts]))
        assert torch.equal(y, torch.cat([part[1] for part in parts]))
    assert whole[0][1].tolist() == part.y[order[0]].tolist()
    for (x, _), (later, _) in zip(whole[2:], all_of(first_step=2), strict=True):
        assert torch.equal(x, later)


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def picture_batches(tree, workers, **more):
    options = ImageDataConfig(path=tree, image_px=24, crop_padding=0, **more)
    part = open_images(options).train
    return PictureBatches(part, augmentation(options), CPU, options, workers)


def test_worker_processes_change_nothing(tree, as_process):
    order = epoch_order(8, 4, seed=0, epoch=2)
    alone, many = picture_batches(tree, 0), picture_batches(tree, 1)
    for epoch in (2, 3):
        expected = list(alone.training(order, 0, epoch, 0))
        for (x, y), (other, labels) in zip(expected, many.training(order, 0, epoch, 0), strict=True):
            assert x.shape == (4, 3, 24, 24)
            assert torch.equal(x, other)
            assert torch.equal(y, labels)
    ((later, _),) = alone.training(order, 0, 3, 1)
    assert torch.equal(later, expected[1][0])
    first = next(iter(alone.training(order, 0, 2, 0)))[0]
    assert not torch.equal(first, expected[0][0])
    halves = []
    for rank in range(2):
        as_process(rank, 2)
        halves.append(next(iter(picture_batches(tree, 0).training(order, 0, 3, 0)))[0])
    assert torch.equal(torch.cat(halves), expected[0][0])


def test_evaluation_takes_the_centre(tree):
    """The same as torchvision's resize and centre crop, where those hit whole pixels."""
    Image.open(tree / "train" / "a" / "0.png").resize((80, 48)).save(tree / "train" / "a" / "0.png")
    (x,) = picture_batches(tree, 0, eval_crop=0.5).plain(np.array([0]), 8)
    picture = Image.open(tree / "train" / "a" / "0.png")
    expected = reference.center_crop(reference.resize(picture, 48), [24, 24])
    assert np.array_equal(x[0].permute(1, 2, 0).numpy(), np.asarray(expected, dtype=np.float32))


def test_crops_have_the_shares_and_shapes_of_the_recipe():
    generator = np.random.default_rng(0)
    boxes = np.array([random_crop((400, 300), 0.3, generator) for _ in range(400)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, ratio = width * height / (400 * 300), width / height
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 400).all()
    assert (boxes[:, 3] <= 300).all()
    assert 0.29 < share.min() < 0.35
    assert share.max() > 0.9
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.35


def test_a_long_narrow_picture_is_cropped_in_its_middle():
    assert random_crop((1000, 10), 0.08, np.random.default_rng(0)) == (493, 0, 506, 10)


def test_a_picture_that_can_not_be_decoded_is_named(tree):
    """By the process that trains, and by one that only decodes."""
    (tree / "train" / "b" / "2.png").write_bytes(b"no picture")
    for workers in (0, 1):
        with pytest.raises(TrainingError, match=r"^The picture train/b/2\.png can't be decoded"):
            list(picture_batches(tree, workers).plain(np.arange(8), 4))
