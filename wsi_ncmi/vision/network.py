"""The network: any timm classifier without its head, with a stem that suits small images."""

from __future__ import annotations

import difflib

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision.config import NetworkConfig

__all__ = ["build_network", "feature_width"]

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def build_network(options: NetworkConfig) -> nn.Module:
    """Builds the network that maps images (B, 3, H, W) to pooled features (B, E), with random weights.

    The small stem is the one that the ResNets of CIFAR have (3 × 3, stride 1, no pooling; He et al., arXiv
    1512.03385, section 4.2).

    Args:
        options: Which network.

    Raises:
        InputError: timm has no such model, it refuses an argument, or it has no stem that can be made small.
    """
    import timm

    if not timm.is_model(options.name):
        near = difflib.get_close_matches(options.name, timm.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see timm.list_models()."
        raise InputError(f"timm has no model named {options.name!r} (network.name); {hint}")
    try:
        network: nn.Module = timm.create_model(
            options.name, pretrained=False, num_classes=0, **options.arguments
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(
            f"timm can't build {options.name!r} with network.arguments {options.arguments} ({error})."
        ) from error
    if options.stem == "small":
        _make_stem_small(network, options)
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The network doesn't take images of {image_px} × {image_px} ({reason}); set network.arguments, "
            "for example img_size and patch_size, or data.image_px."
        ) from error
    finally:
        network.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise InputError("The network doesn't give one feature vector an image; choose another network.name.")
    return int(features.shape[1])


def _make_stem_small(network: nn.Module, options: NetworkConfig) -> None:
    refusal = InputError(
        f"{options.name!r} has no convolutional stem that can be made small; set network.stem: original and, "
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
    stride = options.stem_stride
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
