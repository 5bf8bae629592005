"""The image classifier: a timm network with a stem for small images, a loss's decision, and their files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.losses import Criterion, build_loss, loss_config
from wsi_ncmi.training import load_modules, probabilities_of, read_model_files
from wsi_ncmi.vision.config import NetworkConfig

CLASSIFIER_SCHEMA = "wsi-ncmi-image-model/1"
_BATCH = 256
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def build_network(config: NetworkConfig) -> nn.Module:
    """Builds the network that maps images (B, 3, H, W) to pooled features (B, E), with random weights.

    The small stem is the one that the ResNets of CIFAR have (3 × 3, stride 1, no pooling; He et al., arXiv
    1512.03385, section 4.2).

    Args:
        config: The network.

    Raises:
        InputError: timm has no such model, it refuses an argument, or it has no stem that can be made small.
    """
    import timm

    if not timm.is_model(config.name):
        near = difflib.get_close_matches(config.name, timm.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see timm.list_models()."
        raise InputError(f"timm has no model named {config.name!r} (network.name); {hint}")
    try:
        network: nn.Module = timm.create_model(
            config.name, pretrained=False, num_classes=0, **config.arguments
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(
            f"timm can't build {config.name!r} with network.arguments {config.arguments} ({error})."
        ) from error
    if config.stem == "small":
        _make_stem_small(network, config)
    return network


def feature_width(network: nn.Module, image_px: int) -> int:
    """Width E of the network's features, from one black image.

    Raises:
        InputError: The network doesn't take images of this size, or its features aren't a vector an image.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(torch.zeros(1, 3, image_px, image_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"The network doesn't take images of {image_px} × {image_px} ({first_line(error)}); set "
            "network.arguments, for example img_size and patch_size, or data.image_px."
        ) from error
    finally:
        network.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise InputError("The network doesn't give one feature vector an image; choose another network.name.")
    return int(features.shape[1])


def _make_stem_small(network: nn.Module, config: NetworkConfig) -> None:
    refusal = InputError(
        f"{config.name!r} has no convolutional stem that can be made small; set network.stem: original and, "
        "where it has them, network.arguments such as {img_size: 32, patch_size: 4}."
    )
    name = getattr(network, "pretrained_cfg", {}).get("first_conv")
    if not isinstance(name, str):
        raise refusal
    try:
        first = network.get_submodule(name)
    except AttributeError:
        raise refusal from None
    # A convolution whose stride is its size cuts patches: its network counts on their number.
    if not isinstance(first, nn.Conv2d) or (first.stride == first.kernel_size and first.kernel_size[0] > 1):
        raise refusal
    stride = config.stem_stride
    if first.kernel_size == (3, 3):
        first.stride = (stride, stride)
    else:
        new = nn.Conv2d(
            first.in_channels, first.out_channels, 3, stride=stride, padding=1, bias=first.bias is not None
        )
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)
    _drop_stem_pool(network)


def _drop_stem_pool(network: nn.Module) -> None:
    """Removes the pooling of the stem: the first one, where it comes before any block."""
    for name, module in network.named_modules():
        leaf = name.rpartition(".")[2]
        if leaf in ("maxpool", "pool0") or (leaf == "pool" and name.startswith("stem")):
            # Some stems pool by a block of convolution and norm; only what pools alone can go.
            parts = list(module.modules())
            if any(isinstance(part, _POOLS) for part in parts):
                parent, _, child = name.rpartition(".")
                setattr(network.get_submodule(parent), child, nn.Identity())
                return


@dataclass(frozen=True)
class ImageClassifier:
    """A trained classifier, on the CPU or wherever :meth:`to` took it.

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
        if images.dtype != np.uint8 or images.shape != (len(images) or 1, side, side, 3):
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


def load_classifier(folder: Path) -> ImageClassifier:
    """Loads the classifier of a run's folder, on the CPU. No code in the files is executed.

    Args:
        folder: For example ``OUT/ncmi/seed_0``.

    Raises:
        InputError: A file is missing, altered, or of another version.
    """

    def build(config: Mapping[str, Any], _: object) -> dict[str, nn.Module]:
        network = build_network(NetworkConfig(**config["network"]))
        width = feature_width(network, int(config["image_px"]))
        loss, counts = loss_config(**config["loss"]), config["class_counts"]
        return {"network": network, "criterion": build_loss(loss, len(config["classes"]), width, counts)}

    description, weights = read_model_files(Path(folder), "OUT/ncmi/seed_0")
    config, modules = load_modules(description, weights, str(folder), CLASSIFIER_SCHEMA, build)
    criterion = modules["criterion"]
    assert isinstance(criterion, Criterion)
    return ImageClassifier(modules["network"], criterion, tuple(map(str, config["classes"])), config)
