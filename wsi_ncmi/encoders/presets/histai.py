"""Hibou-B and Hibou-L of HistAI."""

from __future__ import annotations

from typing import Any

from wsi_ncmi.encoders.presets.preset import Architecture, Hub, Preset, Recipe

__all__ = ["PRESETS"]

_RECIPE = Recipe(224, 224, "bicubic", (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))


def _hibou(key: str, title: str, repository: str, network: str, ratio: float, **numbers: Any) -> Preset:
    return Preset(
        key=key,
        title=title,
        architecture=Architecture(
            "vit",
            network,
            {"img_size": 224, "init_values": 1e-5, "mlp_ratio": ratio, "dynamic_img_size": True},
            swiglu=True,
            names="hf_dinov2",
            left_over=("embeddings.mask_token", "mask_token"),
        ),
        recipe=_RECIPE,
        pooling="class",
        published_by="parameter table of a public benchmark, which counts the mask token and the class "
        "token's position (added to the class token here)",
        mpp=(0.5,),
        tile_px=224,
        hub=Hub(repository),
        licence="Apache-2.0",
        commercial=True,
        gated=True,
        access=f"Accept the terms at https://huggingface.co/{repository}, then set HF_TOKEN.",
        citation="Nechaev et al. 2024, Hibou: A Family of Foundational Vision Transformers for Pathology, "
        "arXiv:2406.05074",
        verified=(
            "width and parameters: the architecture was built",
            "construction: HistAI's repository (SwiGLU, 4 registers, layer scale 1e-5)",
            "names: all tensors of transformers' Dinov2WithRegistersModel of this size fit",
            "arithmetic: equal to transformers' Dinov2WithRegistersModel on a small random network",
            "preprocessing: TRIDENT and slide2vec agree",
        ),
        unverified=(
            "features: not compared with the publisher's, whose weights are gated",
            "names: Hibou's modelling code on the hub was not seen; its original code's names fit too",
        ),
        **numbers,
    )


PRESETS = (
    _hibou(
        "hibou_b", "Hibou-B", "histai/hibou-b", "vit_base_patch14_reg4_dinov2", 5.33334,
        width=768, parameters=85_739_520, published="85741056", unused=2 * 768,
    ),
    _hibou(
        "hibou_l", "Hibou-L", "histai/hibou-L", "vit_large_patch14_reg4_dinov2", 5.34375,
        width=1024, parameters=303_657_216, published="303659264", unused=2 * 1024,
    ),
)  # fmt: skip
