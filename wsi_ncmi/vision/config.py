"""Options of image recognition: data, network and recipe; free of torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wsi_ncmi.core.config import configclass

__all__ = ["PACE_FIELDS", "ImageDataConfig", "NetworkConfig", "RecipeConfig"]

PACE_FIELDS = ("checkpoint_interval_s", "device", "threads", "loader_workers")
"""Fields of the recipe that change how fast a run goes, not what it is."""

_Share = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=0)]


@configclass
class ImageDataConfig:
    """Which images, and what happens to them on their way into the network.

    Attributes:
        path: CIFAR-10/100 as published (folder or ``.tar.gz``), an ``.npz``, a folder of lossless mosaics, a
            folder with ``train/`` and ``val/`` or ``test/`` of one folder a class, or a folder of WebDataset
            shards (``*.tar``). What it is, is found out by looking.
        classes: Only the first so many classes, or those named; None takes all.
        images_per_class: At most so many training images of each class (drawn once, the same for every seed).
        validation: Share of the training images of each class that is held out (drawn alike).
        evaluate_on: The part on which every epoch is scored. ``validation`` never opens the test part: for
            choosing anything.
        place: Where a set that fits into memory lies: on the ``device`` or on the ``host``.
        image_px: Side in pixels of what the network sees; None keeps the size of sets in memory. Files need
            it.
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
        """What decides a result, JSON-ready: all but where the data lie."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in ("path", "place")}


@configclass
class NetworkConfig:
    """The classifier's network; its head belongs to the loss.

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
    """How the network is trained: SGD as in the published recipes.

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
        """The fields that decide the weights, JSON-ready (all but ``PACE_FIELDS``)."""
        return {name: value for name, value in asdict(self).items() if name not in PACE_FIELDS}
