"""Any network of timm as an encoder, without its classifier and without any download."""

from functools import cache
from typing import Any, cast

import timm
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.network import Headless, Preprocessing, build_network_encoder, build_seeded

_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@cache
def timm_names() -> tuple[str, ...]:
    """Names of all networks that timm builds, without the tags of published weights."""
    return tuple(timm.list_models())


@cache
def _tagged() -> frozenset[str]:
    return frozenset(timm.list_pretrained())


def headless_timm(name: str, input_px: int | None = None) -> Headless:
    """Builds a timm network with ``num_classes=0`` and seeded random weights.

    Args:
        name: timm's name, with or without the tag of a published configuration (``resnet18.a1_in1k``), which
            decides size, mean and standard deviation.
        input_px: Another input size than the configuration's.

    Returns:
        The network, the names of what was removed, and the preprocessing of timm's configuration.

    Raises:
        InputError: The network can't take ``input_px`` or does not take RGB.
    """
    model: nn.Module = build_seeded(lambda: timm.create_model(name, pretrained=False, num_classes=0))
    published: dict[str, Any] = cast("Any", timm).data.resolve_model_data_config(model)
    channels, own, _ = published["input_size"]
    if channels != 3:
        raise InputError(f"timm:{name} takes {channels} channels, not RGB; choose another model.")
    configuration: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    if configuration.get("fixed_input_size") and input_px not in (None, own):
        raise InputError(f"timm:{name} takes {own} px only, not input_px {input_px}; leave input_px out.")
    head = configuration.get("classifier") or ()
    return Headless(
        model,
        tuple(f"{each}." for each in ((head,) if isinstance(head, str) else head)),
        Preprocessing(
            input_px=input_px or int(own),
            interpolation=_interpolation(published["interpolation"]),
            mean=tuple(published["mean"]),
            std=tuple(published["std"]),
        ),
    )


def _interpolation(published: str) -> str:
    # timm names a few that only PIL has (lanczos) or that training picks at random: bicubic is its own
    # default.
    return published if published in _INTERPOLATIONS else "bicubic"


def is_timm_name(name: str) -> bool:
    """True if timm builds a network of that name, with or without a tag; nothing is looked up elsewhere."""
    # Names such as hf-hub:owner/model would be looked up on the network: only timm's own are taken.
    return name in _tagged() if "." in name else name in timm_names()


def load_timm(name: str, config: EncoderConfig) -> Encoder:
    """Builds the encoder ``timm:NAME``; see :func:`wsi_ncmi.encoders.load_encoder`."""
    return build_network_encoder(headless_timm(name, config.input_px), name, config)
