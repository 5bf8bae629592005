"""The vision transformers and Midnight-12k of kaiko.ai."""

from __future__ import annotations

from typing import Any

from wsi_ncmi.encoders.presets.preset import Architecture, Hub, Preset, Recipe, preset_with_pooling

__all__ = ["PRESETS"]

_RECIPE = Recipe(224, 224, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _kaiko(
    key: str, title: str, network: str, width: int, parameters: int, published: str, **arguments: Any
) -> Preset:
    repository = f"1aurent/{network}.kaiko_ai_towards_large_pathology_fms"
    return Preset(
        key=key,
        title=title,
        architecture=Architecture(
            "vit",
            network,
            {"dynamic_img_size": True, **arguments},
            # The hub's copies carry timm's names; kaiko's own release of ViT-L/14 those of DINOv2.
            names="dinov2" if "dinov2" in network else "timm",
            left_over=("head.", "mask_token"),
        ),
        recipe=_RECIPE,
        pooling="class",
        width=width,
        parameters=parameters,
        # The file of ViT-L/14 has positions for 518 px; resampled once here, by timm at every pass.
        unused=(37 * 37 - 16 * 16) * width if "dinov2" in network else 0,
        published=published,
        published_by="size of the float32 file on the hub",
        mpp=(0.5, 0.25, 1.0, 2.0),
        tile_px=256,
        hub=Hub(repository, ("model.safetensors",)),
        licence="Kaiko non-commercial licence",
        commercial=False,
        gated=False,
        access=f"Public at https://huggingface.co/{repository} and as a release of "
        "https://github.com/kaiko-ai/towards_large_pathology_fms.",
        citation="kaiko.ai et al. 2024, Towards Large-Scale Training of Pathology Foundation Models, "
        "arXiv:2404.15217",
        verified=(
            "width and parameters: the architecture was built",
            "construction and names: kaiko's hubconf.py loads its release strictly into this timm network",
            "preprocessing: kaiko's README and TRIDENT agree",
        ),
        unverified=("features: not compared with the publisher's weights",),
    )


_MIDNIGHT = Preset(
    key="midnight12k",
    title="Midnight-12k",
    architecture=Architecture(
        "vit",
        "vit_giant_patch14_dinov2",
        {"img_size": 224, "dynamic_img_size": True},
        names="hf_dinov2",
        left_over=("embeddings.mask_token",),
    ),
    recipe=_RECIPE,
    pooling="both",
    width=3072,
    parameters=1_134_769_664,
    published="1136480768",
    published_by="parameter table of a public benchmark: the file has positions for 518 px and a mask token",
    unused=(37 * 37 - 16 * 16) * 1536 + 1536,
    mpp=(0.5, 0.25, 1.0, 2.0),
    tile_px=224,
    hub=Hub("kaiko-ai/midnight"),
    licence="MIT",
    commercial=True,
    gated=False,
    access="Public at https://huggingface.co/kaiko-ai/midnight.",
    citation="Karasikov et al. 2025, Training state-of-the-art pathology foundation models with orders of "
    "magnitude less data, arXiv:2504.05186",
    verified=(
        "width and parameters: the architecture was built",
        "names: all 727 tensors of transformers' Dinov2Model of this size fit",
        "arithmetic and interpolated positions: equal to transformers' Dinov2Model on a small random network",
        "preprocessing: TRIDENT and slide2vec agree",
        "pooling: slide2vec and LazySlide join the class token and the mean of the patch tokens (3,072)",
    ),
    unverified=("features: not compared with the publisher's weights",),
)

PRESETS = (
    _kaiko("kaiko-vits8", "Kaiko ViT-S/8", "vit_small_patch8_224", 384, 21_670_272, "86.7MB"),
    _kaiko("kaiko-vits16", "Kaiko ViT-S/16", "vit_small_patch16_224", 384, 21_665_664, "86.7MB"),
    _kaiko("kaiko-vitb8", "Kaiko ViT-B/8", "vit_base_patch8_224", 768, 85_807_872, "343MB"),
    _kaiko("kaiko-vitb16", "Kaiko ViT-B/16", "vit_base_patch16_224", 768, 85_798_656, "343MB"),
    _kaiko(
        "kaiko-vitl14",
        "Kaiko ViT-L/14",
        "vit_large_patch14_reg4_dinov2",
        1024,
        303_230_976,
        "1.22GB",
        img_size=224,
    ),
    _MIDNIGHT,
    preset_with_pooling(
        _MIDNIGHT, "midnight12k-cls", "Midnight-12k, class token alone (TRIDENT's midnight12k)", "class"
    ),
)
