"""Virchow and Virchow2 of Paige."""

from __future__ import annotations

from wsi_ncmi.encoders.presets.preset import (
    IMAGENET,
    Architecture,
    Hub,
    Preset,
    Recipe,
    preset_with_pooling,
)

__all__ = ["PRESETS"]

_ARGUMENTS = {"init_values": 1e-5, "mlp_ratio": 5.3375, "dynamic_img_size": True}
_VERIFIED = (
    "width and parameters: the architecture was built",
    "construction and names: the card and TRIDENT load the file strictly into this timm network",
    "preprocessing: TRIDENT; the card resolves the same from timm's configuration",
    "pooling: the card joins the class token and the mean of the patch tokens, registers left out",
)
_UNVERIFIED = ("features: not compared with the publisher's, whose weights are gated",)


def _access(repository: str) -> str:
    return (
        f"Ask for access at https://huggingface.co/{repository} with an account under your institution's "
        "address, then set HF_TOKEN."
    )


_VIRCHOW = Preset(
    key="virchow",
    title="Virchow",
    architecture=Architecture("vit", "vit_huge_patch14_224", _ARGUMENTS, swiglu=True),
    recipe=Recipe(224, 224, "bicubic", *IMAGENET),
    pooling="both",
    width=2560,
    parameters=631_229_184,
    published="631229184",
    published_by="parameter table of a public benchmark; LazySlide's registry 631.2M; the paper 632M",
    mpp=(0.5,),
    tile_px=224,
    hub=Hub("paige-ai/Virchow"),
    licence="Apache-2.0",
    commercial=True,
    gated=True,
    access=_access("paige-ai/Virchow"),
    citation="Vorontsov et al. 2024, A foundation model for clinical-grade computational pathology and rare "
    "cancers detection, Nature Medicine, doi:10.1038/s41591-024-03141-0",
    verified=_VERIFIED,
    unverified=_UNVERIFIED,
)
_VIRCHOW2 = Preset(
    key="virchow2",
    title="Virchow2",
    architecture=Architecture("vit", "vit_huge_patch14_224", {**_ARGUMENTS, "reg_tokens": 4}, swiglu=True),
    recipe=Recipe(224, 224, "bicubic", *IMAGENET),
    pooling="both",
    width=2560,
    parameters=631_239_424,
    published="631239424",
    published_by="parameter table of a public benchmark; the paper 632M",
    mpp=(0.5, 0.25, 1.0, 2.0),
    tile_px=224,
    hub=Hub("paige-ai/Virchow2"),
    licence="CC-BY-NC-ND-4.0 (non-commercial, no derivatives)",
    commercial=False,
    gated=True,
    access=_access("paige-ai/Virchow2"),
    citation="Zimmermann et al. 2024, Virchow2: Scaling Self-Supervised Mixed Magnification Models in "
    "Pathology, arXiv:2408.00738",
    verified=_VERIFIED,
    unverified=_UNVERIFIED,
)

PRESETS = (
    _VIRCHOW,
    _VIRCHOW2,
    preset_with_pooling(_VIRCHOW2, "virchow2-cls", "Virchow2, class token alone (for PRISM2)", "class"),
)
