"""A small image set, network and recipe that train in a second or two."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from wsi_ncmi.vision import ImageDataConfig, ImageJobConfig, NetworkConfig, RecipeConfig, open_images

COLOURS = np.array([(180, 60, 60), (60, 180, 60), (60, 60, 180)])


def pixels(y: np.ndarray, seed: int, side: int = 12) -> np.ndarray:
    """Noise around the colour of the class, uint8 (N, side, side, 3)."""
    noise = np.random.default_rng(seed).normal(0, 50, (len(y), side, side, 3))
    return np.clip(COLOURS[y][:, None, None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    """An ``.npz`` of 3 classes: 70 training and 30 test images of 12 × 12."""
    path = tmp_path_factory.mktemp("images") / "colours.npz"
    y_train, y_test = np.arange(70) % 3, np.arange(30) % 3
    np.savez(
        path, x_train=pixels(y_train, 0), y_train=y_train, x_test=pixels(y_test, 1), y_test=y_test,
        classes=np.array(["red", "green", "blue"]),
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def vision(image_file):
    """Configuration and opened images of the small set."""
    data = ImageDataConfig(path=image_file, crop_padding=1)
    network = NetworkConfig(arguments={"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]})
    recipe = RecipeConfig(
        epochs=3, batch_size=16, warmup_epochs=0.5, schedule="cosine", device="cpu", learning_rate=0.05
    )
    config = ImageJobConfig(data=data, network=network, recipe=recipe)
    return SimpleNamespace(config=config, data=data, images=open_images(data), network=network, recipe=recipe)
