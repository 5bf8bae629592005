"""H-optimus-0, H-optimus-1 and H0-mini of Bioptimus."""

from __future__ import annotations

from wsi_ncmi.encoders.presets.preset import Architecture, Hub, Preset, Recipe, preset_with_pooling

__all__ = ["PRESETS"]

_MEAN_STD = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_LICENCE = "CC-BY-NC-ND-4.0 (non-commercial, no derivatives)"
_GIANT = Architecture(
    "vit",
    "vit_giant_patch14_reg4_dinov2",
    {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
)
_VERIFIED = (
    "width and parameters: the architecture was built",
    "construction and names: the card and TRIDENT load the file strictly into this timm network",
    "mean and standard deviation: the card, TRIDENT and slide2vec agree",
)
_UNVERIFIED = (
    "features: not compared with the publisher's, whose weights are gated",
    "resize: the card takes 224 px tiles as they are; TRIDENT resizes others bilinear, slide2vec bicubic",
)


def _access(repository: str) -> str:
    return f"Accept the terms at https://huggingface.co/{repository}, then set HF_TOKEN."


_MINI = Preset(
    key="h0-mini",
    title="H0-mini",
    architecture=Architecture(
        "vit",
        "vit_base_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334, "dynamic_img_size": True},
        swiglu=True,
    ),
    recipe=Recipe(224, 224, "bicubic", *_MEAN_STD),
    pooling="class",
    width=768,
    parameters=85_739_520,
    published="85.7M",
    published_by="LazySlide's registry",
    mpp=(0.5,),
    tile_px=224,
    hub=Hub("bioptimus/H0-mini"),
    licence=_LICENCE,
    commercial=False,
    gated=True,
    access=_access("bioptimus/H0-mini"),
    citation="Filiot et al. 2025, Distilling foundation models for robust and efficient models in digital "
    "pathology, arXiv:2501.16239",
    verified=(
        "width and parameters: the architecture was built",
        "construction: the card's SwiGLUPacked and SiLU, 261 tokens of 768 (1 class, 4 registers)",
        "mean and standard deviation: slide2vec and HEST users agree",
    ),
    unverified=(
        "features: not compared with the publisher's, whose weights are gated",
        "names: those of timm's network with the card's arguments; no list of the file was found",
        "interpolation: bicubic in slide2vec; the card reads it from a configuration that is gated",
    ),
)

PRESETS = (
    Preset(
        key="hoptimus0",
        title="H-optimus-0",
        architecture=_GIANT,
        recipe=Recipe(224, 224, "bilinear", *_MEAN_STD),
        pooling="class",
        width=1536,
        parameters=1_134_774_272,
        published="1134774272",
        published_by="parameter table of a public benchmark; the card 1.1B",
        mpp=(0.5,),
        tile_px=224,
        hub=Hub("bioptimus/H-optimus-0"),
        licence="Apache-2.0",
        commercial=True,
        gated=True,
        access=_access("bioptimus/H-optimus-0"),
        citation="Saillard et al. 2024, H-optimus-0, https://github.com/bioptimus/releases",
        verified=_VERIFIED,
        unverified=_UNVERIFIED,
    ),
    Preset(
        key="hoptimus1",
        title="H-optimus-1",
        architecture=_GIANT,
        recipe=Recipe(224, 224, "bilinear", *_MEAN_STD),
        pooling="class",
        width=1536,
        parameters=1_134_774_272,
        published="1134774272",
        published_by="parameter table of a public benchmark; the card 1.1B",
        mpp=(0.5,),
        tile_px=224,
        hub=Hub("bioptimus/H-optimus-1"),
        licence=_LICENCE,
        commercial=False,
        gated=True,
        access=_access("bioptimus/H-optimus-1"),
        citation="Bioptimus 2025, H-optimus-1, https://huggingface.co/bioptimus/H-optimus-1",
        verified=_VERIFIED,
        unverified=_UNVERIFIED,
    ),
    _MINI,
    preset_with_pooling(_MINI, "h0-mini-both", "H0-mini, class token and mean of the patches", "both"),
)
