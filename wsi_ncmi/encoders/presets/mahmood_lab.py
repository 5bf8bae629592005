"""UNI, UNI2-h and CONCH of the Mahmood lab."""

from __future__ import annotations

from wsi_ncmi.encoders.presets.preset import IMAGENET, Architecture, Hub, Preset, Recipe

__all__ = ["PRESETS"]

_LICENCE = "CC-BY-NC-ND-4.0 (non-commercial, no derivatives)"
_UNVERIFIED = ("features: not compared with the publisher's, whose weights are gated",)


def _access(repository: str) -> str:
    return (
        f"Ask for access at https://huggingface.co/{repository} with an account under your institution's "
        "address, then set HF_TOKEN."
    )


PRESETS = (
    Preset(
        key="uni_v1",
        title="UNI",
        architecture=Architecture(
            "vit", "vit_large_patch16_224", {"init_values": 1e-5, "dynamic_img_size": True}
        ),
        recipe=Recipe(224, 224, "bilinear", *IMAGENET),
        pooling="class",
        width=1024,
        parameters=303_350_784,
        published="303350784",
        published_by="FLOP table of a public benchmark; LazySlide's registry 303.4M",
        mpp=(0.5,),
        tile_px=256,
        hub=Hub("MahmoodLab/UNI", ("pytorch_model.bin",)),
        licence=_LICENCE,
        commercial=False,
        gated=True,
        access=_access("MahmoodLab/UNI"),
        citation="Chen et al. 2024, Towards a general-purpose foundation model for computational pathology, "
        "Nature Medicine, doi:10.1038/s41591-024-02857-3",
        verified=(
            "width and parameters: the architecture was built",
            "construction and names: the card and TRIDENT load the file strictly into this timm network",
            "preprocessing: UNI's repository and TRIDENT",
        ),
        unverified=_UNVERIFIED,
    ),
    Preset(
        key="uni_v2",
        title="UNI2-h",
        architecture=Architecture(
            "vit",
            "vit_giant_patch14_224",
            {
                "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536,
                "mlp_ratio": 2.66667 * 2, "init_values": 1e-5, "no_embed_class": True, "reg_tokens": 8,
                "dynamic_img_size": True,
            },
            swiglu=True,
        ),
        recipe=Recipe(224, 224, "bilinear", *IMAGENET),
        pooling="class",
        width=1536,
        parameters=681_394_176,
        published="681394176",
        published_by="parameter table of a public benchmark; LazySlide's registry 681.4M",
        mpp=(0.5,),
        tile_px=256,
        hub=Hub("MahmoodLab/UNI2-h", ("pytorch_model.bin",)),
        licence=_LICENCE,
        commercial=False,
        gated=True,
        access=_access("MahmoodLab/UNI2-h"),
        citation="Chen et al. 2024, Nature Medicine, doi:10.1038/s41591-024-02857-3 (UNI2-h: January 2025)",
        verified=(
            "width and parameters: the architecture was built",
            "construction and names: the card and TRIDENT load the file strictly into this timm network",
            "preprocessing: the card's example and TRIDENT",
        ),
        unverified=_UNVERIFIED,
    ),
    Preset(
        key="conch_v1",
        title="CONCH (vision tower, before the contrastive projection)",
        architecture=Architecture(
            "coca_vision",
            "vit_base_patch16_224",
            {"img_size": 448, "dynamic_img_size": True},
            names="conch",
            left_over=(
                "proj_contrast", "attn_pool_caption.", "ln_caption.", "text.", "text_decoder.", "logit_scale",
            ),
        ),
        recipe=Recipe(448, 448, "bicubic", *IMAGENET),
        pooling="class",
        width=512,
        parameters=87_567_104,
        published="395232769",
        published_by="parameter count of the whole model, text tower, decoder and caption pooler included",
        unused=307_665_665,
        mpp=(0.5,),
        tile_px=512,
        hub=Hub("MahmoodLab/conch", ("pytorch_model.bin",)),
        licence=_LICENCE,
        commercial=False,
        gated=True,
        access=_access("MahmoodLab/conch"),
        citation="Lu et al. 2024, A visual-language foundation model for computational pathology, "
        "Nature Medicine, doi:10.1038/s41591-024-02856-4",
        verified=(
            "width: the architecture was built",
            "parameters: with those of the parts that are left out, counted layer by layer, they are the "
            "whole model's published number",
            "construction, names and preprocessing: CONCH's repository (vision tower, attentional pooler)",
            "attentional pooler: compared with a plain reading of its equations",
            "output: TRIDENT's default (no projection, no normalisation)",
        ),
        unverified=_UNVERIFIED,
    ),
)  # fmt: skip
