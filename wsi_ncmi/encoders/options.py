"""Options that choose an encoder and how it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wsi_ncmi.options import options

__all__ = ["EncoderOptions"]


@options
class EncoderOptions:
    """Which encoder, with which weights, on which device.

    Attributes:
        name: ``descriptor``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: File (safetensors, or .pt/.pth/.bin of tensors only) or a folder with one file of the
            model's name; None gives random weights from a fixed seed, with a warning.
        device: ``auto`` takes a CUDA device where there is one.
        precision: ``auto`` is fp32 on the CPU (the same numbers on every machine that computes exactly)
            and fp16 on CUDA (features are stored as float16, which bfloat16 would round more coarsely).
        batch_size: Tiles of one forward pass; every pass has this size, so it is part of how numbers arise.
        input_px: Edge of the network's input in pixels; None takes the model's own.
    """

    name: str = "descriptor"
    weights: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    input_px: Annotated[int, Field(ge=16, le=2048)] | None = None
