"""Any classification network of torchvision as an encoder, its last linear layer taken off."""

from functools import cache
from typing import Any

import torchvision
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.network import Headless, Preprocessing, build_network_encoder, build_seeded

_HEADS = ("fc", "classifier", "heads", "head")
# Networks whose published weights want their input scaled as TensorFlow did, and whose auxiliary classifiers
# serve training only.
_INCEPTIONS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of all classification networks of torchvision."""
    return tuple(sorted(torchvision.models.list_models(module=torchvision.models)))


def headless_torchvision(name: str, input_px: int | None = None) -> Headless:
    """Builds a torchvision network without its classifier, with seeded random weights.

    The last ``nn.Linear`` of the classifier becomes the identity: what the classifier saw is the feature
    vector (VGG and AlexNet 4096, MobileNetV3-small 1024; layers before it stay). SqueezeNet classifies by a
    convolution: its whole classifier becomes global average pooling (512).

    Args:
        name: torchvision's name, for example ``resnet50``.
        input_px: Another input size than the published weights'.

    Returns:
        The network, the names of what was removed, and torchvision's own preprocessing for its default
        weights.

    Raises:
        InputError: The network can't take ``input_px``.
    """
    arguments: dict[str, Any] = {}
    if name in _INCEPTIONS:
        arguments = {"aux_logits": False, "transform_input": True, "init_weights": False}
    model: nn.Module = build_seeded(lambda: torchvision.models.get_model(name, weights=None, **arguments))
    preprocessing = _preprocessing(name, model, input_px)
    if name.startswith("squeezenet"):
        model.classifier = nn.AdaptiveAvgPool2d(1)
        return Headless(model, ("classifier.",), preprocessing)
    attribute = next(each for each in _HEADS if hasattr(model, each))
    layers = [
        f"{attribute}.{inner}".rstrip(".")
        for inner, module in getattr(model, attribute).named_modules()
        if isinstance(module, nn.Linear)
    ]
    model.set_submodule(layers[-1], nn.Identity())
    return Headless(model, (f"{layers[-1]}.", *_INCEPTIONS.get(name, ())), preprocessing)


def _preprocessing(name: str, model: nn.Module, input_px: int | None) -> Preprocessing:
    published = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    # Transformers are tied to the size they are built for, which is not always that of the default weights.
    fixed = getattr(model, "image_size", None) if name.startswith("vit") else None
    if name.startswith("maxvit"):
        fixed = published.crop_size[0]
    own = int(fixed or published.crop_size[0])
    if fixed is not None and input_px not in (None, fixed):
        raise InputError(
            f"torchvision:{name} takes {fixed} px only, not input_px {input_px}; leave input_px out."
        )
    return Preprocessing(
        input_px=input_px or own,
        interpolation=published.interpolation.value,
        mean=tuple(published.mean),
        std=tuple(published.std),
        note="scaled to -1 … 1 by the network" if name in _INCEPTIONS else "",
    )


def load_torchvision(name: str, config: EncoderConfig) -> Encoder:
    """Builds the encoder ``torchvision:NAME``; see :func:`wsi_ncmi.encoders.load_encoder`."""
    return build_network_encoder(headless_torchvision(name, config.input_px), name, config)
