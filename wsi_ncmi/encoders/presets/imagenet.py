"""ImageNet's ResNet-50, whole and as CLAM cuts it."""

from __future__ import annotations

from dataclasses import replace

from wsi_ncmi.encoders.presets.preset import IMAGENET, Architecture, Hub, Preset, Recipe

__all__ = ["PRESETS"]

_RESNET50 = Preset(
    key="resnet50",
    title="ResNet-50 (ImageNet)",
    architecture=Architecture("resnet", "resnet50", left_over=("fc.",)),
    recipe=Recipe(224, 224, "bilinear", *IMAGENET),
    pooling="mean",
    width=2048,
    parameters=23_508_032,
    published="23508032",
    published_by="parameter table of a public benchmark; torchvision's 25,557,032 less the classifier",
    mpp=(0.5,),
    tile_px=256,
    hub=Hub("timm/resnet50.tv_in1k"),
    licence="BSD-3-Clause",
    commercial=True,
    gated=False,
    access="Public; torchvision's file resnet50-0676ba61.pth is the same network.",
    citation="He et al. 2016, Deep Residual Learning for Image Recognition, CVPR",
    sha256=("0676ba61", "19c8e357"),
    verified=(
        "width and parameters: the architecture was built",
        "names: equal to torchvision's own resnet50",
        "preprocessing: TRIDENT and CLAM resize the whole tile to 224 px, bilinear",
    ),
)

PRESETS = (
    _RESNET50,
    replace(
        _RESNET50,
        key="resnet50_trunc",
        title="ResNet-50 (ImageNet) cut after its third stage, as CLAM does; TRIDENT's resnet50",
        architecture=Architecture("resnet_trunk", "resnet50", left_over=("fc.", "layer4.")),
        width=1024,
        parameters=8_543_296,
        published="",
        published_by="part of torchvision's ResNet-50",
        verified=(*_RESNET50.verified, "output: CLAM takes the mean of stage 3 of timm's resnet50.tv_in1k"),
        weights_of="resnet50",
    ),
)
