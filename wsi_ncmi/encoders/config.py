"""Options that choose an encoder and how it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass

__all__ = ["EncoderConfig"]

Positive = Annotated[float, Field(gt=0)]


@configclass
class EncoderConfig:
    """Which encoder, with which weights, on which device.

    Attributes:
        name: ``descriptor``, the key of a preset, ``torchvision:NAME``, ``timm:NAME``, ``torchscript:PATH``,
            ``onnx:PATH``, ``file:PATH.py:CALLABLE`` or ``plugin:NAME``.
        weights: File (safetensors, or .pt/.pth/.bin of tensors only) or a folder with a manifest or one file
            of the model's name; None gives torchvision's and timm's networks random weights from a fixed
            seed, with a warning; a preset does not go without.
        device: ``auto`` takes a CUDA device where there is one.
        precision: ``auto`` is fp32 on the CPU (the same numbers on every machine that computes exactly)
            and fp16 on CUDA (features are stored as float16, which bfloat16 would round more coarsely).
        batch_size: Tiles of one forward pass; every pass has this size, so it is part of how numbers arise
            (to the rounding of float32). ``auto`` is 16 on the CPU; on CUDA, up to 256 that fit its memory.
        backend: What computes a network: ``torch``, ``compile`` (``torch.compile``), or an optional package
            on the CPU, ``onnx`` (ONNX Runtime) or ``openvino``. ``auto`` is ``torch``. Each rounds in its own
            way, so it is part of a feature file's identity.
        input_px: Edge of the network's input in pixels; None takes the model's own.
        mean: Of each channel in 0 … 1, for networks from a user's file; None takes ImageNet's.
        std: Standard deviation, same.
        interpolation: Of the resize to ``input_px``, same; None takes bilinear.
    """

    name: str = "descriptor"
    weights: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    backend: Literal["auto", "torch", "compile", "onnx", "openvino"] = "auto"
    input_px: Annotated[int, Field(ge=16, le=2048)] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
