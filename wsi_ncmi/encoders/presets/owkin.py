"""Phikon and Phikon-v2 of Owkin."""

from __future__ import annotations

from wsi_ncmi.encoders.presets.preset import IMAGENET, Architecture, Hub, Preset, Recipe

__all__ = ["PRESETS"]

_UNVERIFIED = ("features: not compared with the publisher's weights",)

PRESETS = (
    Preset(
        key="phikon",
        title="Phikon",
        architecture=Architecture(
            "vit",
            "vit_base_patch16_224",
            {"dynamic_img_size": True},
            norm_eps=1e-12,
            names="hf_vit",
            left_over=("pooler.", "embeddings.mask_token", "classifier."),
        ),
        recipe=Recipe(224, 224, "bilinear", *IMAGENET),
        pooling="class",
        width=768,
        parameters=85_798_656,
        published="85798656",
        published_by="parameter table of a public benchmark; LazySlide's registry 85.8M",
        mpp=(0.5,),
        tile_px=224,
        hub=Hub("owkin/phikon"),
        licence="Owkin non-commercial licence",
        commercial=False,
        gated=False,
        access="Public at https://huggingface.co/owkin/phikon.",
        citation="Filiot et al. 2023, Scaling Self-Supervised Learning for Histopathology with Masked Image "
        "Modeling, medRxiv 2023.07.21.23292757",
        verified=(
            "width and parameters: the architecture was built",
            "names: all 198 tensors of transformers' ViTModel of this size fit",
            "arithmetic: equal to transformers' ViTModel on a small random network",
            "preprocessing: TRIDENT (bilinear, ImageNet's mean and standard deviation)",
        ),
        unverified=_UNVERIFIED,
    ),
    Preset(
        key="phikon_v2",
        title="Phikon-v2",
        architecture=Architecture(
            "vit",
            "vit_large_patch16_224",
            {"init_values": 1.0, "dynamic_img_size": True},
            names="hf_dinov2",
            left_over=("embeddings.mask_token",),
        ),
        recipe=Recipe(224, 224, "bilinear", *IMAGENET),
        pooling="class",
        width=1024,
        parameters=303_350_784,
        published="303351808",
        published_by="parameter table of a public benchmark, which counts the mask token",
        unused=1024,
        mpp=(0.5,),
        tile_px=224,
        hub=Hub("owkin/phikon-v2"),
        licence="Owkin non-commercial licence",
        commercial=False,
        gated=False,
        access="Public at https://huggingface.co/owkin/phikon-v2.",
        citation="Filiot et al. 2024, Phikon-v2, A large and public feature extractor for biomarker "
        "prediction, arXiv:2409.09173",
        verified=(
            "width and parameters: the architecture was built",
            "names: all 439 tensors of transformers' Dinov2Model of this size fit",
            "arithmetic: equal to transformers' Dinov2Model on a small random network",
            "preprocessing: TRIDENT (bilinear, ImageNet's mean and standard deviation)",
        ),
        unverified=_UNVERIFIED,
    ),
)
