"""The configuration of an image-recognition job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.losses import PRESETS, AnyLoss, LossConfig, loss_config
from wsi_ncmi.vision import ImageDataConfig, NetworkConfig, RecipeConfig

__all__ = ["ImageJobConfig"]


def _named(value: Any) -> Any:
    """``[ce, ncmi_paper, {name: ncmi, temperature: 1}]`` or ``{warm: {name: ncmi, temperature: 1}}``."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, Mapping):
        return {str(key): _loss(item if item is not None else str(key)) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        return value
    named: dict[str, Any] = {}
    for item in value:
        own = item.get("name", "ncmi") if isinstance(item, Mapping) else str(item)
        name, number = own, 2
        while name in named:
            name, number = f"{own}-{number}", number + 1
        named[name] = _loss(item)
    return named


def _loss(item: Any) -> Any:
    if not isinstance(item, str):
        return item
    # ``ncmi_paper`` is NCMI with the preset ``paper``; ``ncmi`` alone is the default of this version.
    head, _, preset = item.partition("_")
    return {"name": "ncmi", "preset": preset} if head == "ncmi" and preset in PRESETS else {"name": item}


def _folders(value: dict[str, LossConfig]) -> dict[str, LossConfig]:
    for name in value:
        if path_safe(name) != name or not name.strip("."):
            raise ValueError(f"{name!r} can't be the name of a loss's folder; use letters, digits, - and _")
    return value


@configclass
class ImageJobConfig:
    """Losses × seeds on one image set, everything else equal.

    Attributes:
        name: Title of the page.
        out: Output folder: ``<loss>/seed_<n>/``, ``runs.csv``, ``summary.json`` and ``curves.html``.
        data: The images.
        network: The network.
        losses: Losses to train; the first one is what the others are compared with. A list of names
            (``ce``, ``ncmi``, ``ncmi_<preset>``, …) or of loss options, or a mapping from a name to options.
        seeds: Number of seeds (``first_seed``, ``first_seed`` + 1, …).
        first_seed: The first of them.
        recipe: How all of them are trained.
        workers: Processes that train a run each (CPU); a GPU has one, or ``torchrun`` shares each run out.
    """

    name: str = "Image recognition"
    out: Path = Path("out")
    data: ImageDataConfig = Field(default_factory=ImageDataConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    losses: Annotated[
        dict[str, AnyLoss], BeforeValidator(_named), AfterValidator(_folders), Field(min_length=1)
    ] = Field(default_factory=lambda: {"ce": loss_config(name="ce"), "ncmi": loss_config()})
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    first_seed: Annotated[int, Field(ge=0)] = 0
    recipe: RecipeConfig = Field(default_factory=RecipeConfig)
    workers: Annotated[int, Field(ge=1)] = 1
