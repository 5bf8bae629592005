"""Configuration of image recognition: images, network, recipe, and the whole job; free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.losses import PRESETS, AnyLoss, LossConfig, loss_config

# Fields that change how fast a run is, not its result.
_PACE_FIELDS = frozenset({"checkpoint_interval_s", "device", "threads", "loader_workers"})

_Share = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=0)]


@configclass
class ImageDataConfig:
    """The image set and its augmentation.

    Attributes:
        path: CIFAR-10/100 as published (folder or ``.tar.gz``), an ``.npz``, a folder of lossless mosaics, a
            folder with ``train/`` and ``val/`` or ``test/`` of one folder a class, or a folder of WebDataset
            shards (``*.tar``).
        classes: Only the first so many classes, or those named; None takes all.
        images_per_class: At most so many training images of each class (drawn once, the same for every seed).
        validation: Share of the training images of each class that is held out (drawn alike).
        evaluate_on: The part on which every epoch is scored. ``validation`` never opens the test part: for
            choosing anything.
        place: Where the pixels of a set in memory lie: on the ``device`` or on the ``host``.
        image_px: Side in pixels of the network's input; None keeps the size of sets in memory. Pictures in
            files need it.
        crop_padding: A training image is shifted by at most so many pixels each way; black comes in.
        flip: Half of the training images are mirrored left to right.
        rotation_deg: Training images are turned by at most so many degrees (nearest pixel; black comes in).
        cutout_px: Side of a square of a training image that is set to the mean colour; 0 = none.
        crop_scale: Files only: smallest share of the picture that a random resized crop takes.
        eval_crop: Files only: share of the resized picture's side that the centre crop keeps in evaluation.
    """

    path: Path | None = None
    classes: Annotated[int, Field(ge=2)] | tuple[str, ...] | None = None
    images_per_class: Annotated[int, Field(ge=1)] | None = None
    validation: _Share = 0.0
    evaluate_on: Literal["test", "validation"] = "test"
    place: Literal["device", "host"] = "device"
    image_px: Annotated[int, Field(ge=8)] | None = None
    crop_padding: _Count = 4
    flip: bool = True
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    cutout_px: _Count = 0
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    eval_crop: Annotated[float, Field(gt=0, le=1)] = 0.875

    @model_validator(mode="after")
    def _needs_validation(self) -> ImageDataConfig:
        if self.evaluate_on == "validation" and not self.validation:
            raise ValueError("evaluate_on: validation needs a share in data.validation, such as 0.1")
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result, JSON-ready: all but where the data lie."""
        return {name: value for name, value in asdict(self).items() if name not in ("path", "place")}


@configclass
class NetworkConfig:
    """The network without its head, which belongs to the loss.

    Attributes:
        name: Any name of ``timm.list_models()``.
        stem: ``small`` makes the first convolution 3 × 3 without stride and drops the pooling behind it, for
            images of 32 × 32 or so; ``original`` leaves both as they are.
        stem_stride: Stride of the small stem.
        arguments: Further arguments of ``timm.create_model``, for example ``{img_size: 32, patch_size: 4}``.
    """

    name: str = "resnet18"
    stem: Literal["small", "original"] = "small"
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1
    arguments: dict[str, Any] = Field(default_factory=dict)


@configclass
class RecipeConfig:
    """Training by SGD, as in the published recipes.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images of a step, over all processes together; the rest of an epoch is left out.
        learning_rate: Peak rate.
        momentum: Momentum of SGD.
        nesterov: Nesterov's form of it.
        weight_decay: L2 penalty, on biases and normalisation too, as the recipes have it.
        schedule: ``step`` multiplies the rate by ``gamma`` at each milestone, ``cosine`` lets it fall to
            zero.
        milestones: Shares of the epochs at which a ``step`` happens.
        gamma: Factor of a step.
        warmup_epochs: Epochs in which the rate rises linearly, step by step.
        gradient_clip: Largest global L2 norm of a gradient; 0 = no clipping.
        precision: Precision of the network in autocast; the loss is in float32 at least.
        channels_last: Memory layout of images and weights.
        compile: ``torch.compile`` of the network: its mode, or ``off``.
        sync_batch_norm: Batch statistics over all processes (CUDA).
        decision: Where a loss that fits its decision gets it fitted before every evaluation: on the
            validation part where there is one, else on ``decision_images`` of the training part; ``none``
            leaves it.
        decision_images: At most so many.
        evaluate_every: Epochs between two evaluations; the last epoch is always evaluated.
        device: ``cpu``, ``cuda`` or ``auto``. Bit-equal repeats are promised on CPU only.
        threads: Torch threads of a CPU run.
        loader_workers: Processes that decode images of files.
        checkpoint_interval_s: Least seconds between two writes of the resume checkpoint.
    """

    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: _Share = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.3, 0.6, 0.8)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.2
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    gradient_clip: Annotated[float, Field(ge=0)] = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    sync_batch_norm: bool = False
    decision: Literal["auto", "none"] = "auto"
    decision_images: Annotated[int, Field(ge=1)] = 5000
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    loader_workers: _Count = 8
    checkpoint_interval_s: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _is_a_recipe(self) -> RecipeConfig:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs ({self.epochs}), got {self.warmup_epochs}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that decide the weights, JSON-ready (all but the pace)."""
        return {name: value for name, value in asdict(self).items() if name not in _PACE_FIELDS}


def _named_losses(value: Any) -> Any:
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
        if path_safe(name) != name:
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
        dict[str, AnyLoss], BeforeValidator(_named_losses), AfterValidator(_folders), Field(min_length=1)
    ] = Field(default_factory=lambda: {"ce": loss_config(name="ce"), "ncmi": loss_config()})
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    first_seed: Annotated[int, Field(ge=0)] = 0
    recipe: RecipeConfig = Field(default_factory=RecipeConfig)
    workers: Annotated[int, Field(ge=1)] = 1
