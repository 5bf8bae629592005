"""The trained classifier on disk: ``model.safetensors`` holds the numbers, ``model.json`` their meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import nn

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, sha256_file, write_json
from wsi_ncmi.losses import LossConfig, build_loss, loss_config
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.training.scoring import probabilities_of
from wsi_ncmi.vision.config import NetworkConfig
from wsi_ncmi.vision.network import build_network, feature_width

__all__ = ["MODEL_JSON", "MODEL_WEIGHTS", "ImageClassifier", "load_classifier", "write_classifier"]

MODEL_JSON = "model.json"
MODEL_WEIGHTS = "model.safetensors"
_SCHEMA = "wsi-ncmi-image-model/1"
_BATCH = 256


@dataclass(frozen=True)
class ImageClassifier:
    """A classifier ready to predict, on the CPU or wherever :meth:`to` took it.

    Attributes:
        network: Normalised images → features, in evaluation mode.
        criterion: Features → probabilities, in evaluation mode.
        classes: Class names in the order of the probabilities.
        config: Content of ``model.json``.
    """

    network: nn.Module
    criterion: Criterion
    classes: tuple[str, ...]
    config: Mapping[str, Any]

    @torch.no_grad()
    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Class probabilities, float64 (N, C), each row summing to 1.

        Args:
            images: uint8 (N, S, S, 3), RGB, S as in training (``config["image_px"]``), at least one.

        Raises:
            InputError: Images of another shape or type.
        """
        side = int(self.config["image_px"])
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[1:] != (side, side, 3)
            or not len(images)
        ):
            raise InputError(
                f"The classifier takes uint8 images (N, {side}, {side}, 3), at least one; got {images.dtype} "
                f"of shape {images.shape}."
            )
        device = next(self.network.parameters()).device
        mean, std = (torch.tensor(self.config[name], device=device) for name in ("mean", "std"))
        parts = []
        for part in torch.split(torch.from_numpy(np.ascontiguousarray(images)), _BATCH):
            x = ((part.to(device).float() - mean) / std).permute(0, 3, 1, 2)
            parts.append(self.network(x).float())
        return probabilities_of(self.criterion, torch.cat(parts))

    def to(self, device: torch.device | str) -> ImageClassifier:
        """Moves the classifier to a device (in place) and returns it."""
        self.network.to(device)
        self.criterion.to(device)
        return self


def write_classifier(
    folder: Path,
    network: nn.Module,
    criterion: Criterion,
    *,
    classes: Sequence[str],
    image_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    network_options: NetworkConfig,
    loss: LossConfig,
    class_counts: Sequence[int],
) -> None:
    """Writes the weights, then their description, each atomically.

    Args:
        folder: Where to; it exists.
        network: The fitted network.
        criterion: The fitted criterion.
        classes: Class names in the order of the targets.
        image_px: Side of the images.
        mean: Mean of the channels that was subtracted, on the scale 0–255.
        std: Their standard deviation.
        network_options: What ``network`` was built with.
        loss: What ``criterion`` was built with.
        class_counts: Training images of each class.
    """
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous().clone()
        for prefix, module in (("network", network), ("criterion", criterion))
        for name, tensor in module.state_dict().items()
    }
    with atomic_path(folder / MODEL_WEIGHTS) as temporary:
        save_file(tensors, temporary)
    config = {
        "schema": _SCHEMA,
        "software": f"wsi-ncmi {__version__}",
        "weights_sha256": sha256_file(folder / MODEL_WEIGHTS),
        "classes": list(classes),
        "image_px": image_px,
        "mean": list(mean),
        "std": list(std),
        "network": asdict(network_options),
        "loss": asdict(loss),
        "class_counts": list(class_counts),
    }
    write_json(folder / MODEL_JSON, config)


def load_classifier(folder: Path) -> ImageClassifier:
    """Loads the classifier of a run's folder, on the CPU. No code in the files is executed.

    Args:
        folder: For example ``OUT/ncmi/seed_0``.

    Raises:
        InputError: A file is missing, altered, or of another version.
    """
    folder = Path(folder)
    description, weights = folder / MODEL_JSON, folder / MODEL_WEIGHTS
    if not description.is_file() or not weights.is_file():
        raise InputError(
            f"{folder} holds no trained classifier ({MODEL_JSON} and {MODEL_WEIGHTS}); give a folder such as "
            "OUT/ncmi/seed_0."
        )
    try:
        config = json.loads(description.read_text(encoding="utf-8"))
        if config["schema"] != _SCHEMA:
            raise ValueError(f"schema {config['schema']!r}, not {_SCHEMA!r}")
        if sha256_file(weights) != config["weights_sha256"]:
            raise ValueError("the weights were altered after training")
        network = build_network(NetworkConfig(**config["network"]))
        width = feature_width(network, int(config["image_px"]))
        classes = tuple(str(name) for name in config["classes"])
        criterion = build_loss(loss_config(**config["loss"]), len(classes), width, config["class_counts"])
        tensors = load_tensors(weights.read_bytes())
        for prefix, module in (("network.", network), ("criterion.", criterion)):
            mine = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            module.load_state_dict(mine)
    except (KeyError, TypeError, ValueError, ValidationError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder} isn't a classifier that this version can load ({reason}).") from error
    return ImageClassifier(network.eval(), criterion.eval(), classes, config)
