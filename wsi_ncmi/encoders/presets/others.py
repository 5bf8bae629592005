"""Lunit's DINO, CTransPath and CHIEF's copy of it, Prov-GigaPath's tile encoder, GPFM."""

from __future__ import annotations

from dataclasses import replace

from wsi_ncmi.encoders.presets.preset import IMAGENET, Architecture, Hub, Preset, Recipe

__all__ = ["PRESETS"]

_LUNIT = Recipe(
    248, 224, "bicubic", (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
)


def _lunit(patch: int, parameters: int) -> Preset:
    repository = f"1aurent/vit_small_patch{patch}_224.lunit_dino"
    return Preset(
        key=f"lunit-vits{patch}",
        title=f"Lunit DINO ViT-S/{patch}",
        architecture=Architecture("vit", f"vit_small_patch{patch}_224", {"dynamic_img_size": True}),
        recipe=_LUNIT,
        pooling="class",
        width=384,
        parameters=parameters,
        published="86.7MB",
        published_by="size of the float32 file on the hub; list of models by G. Wölflein 22M",
        mpp=(0.5, 0.25),
        tile_px=224,
        hub=Hub(repository, ("model.safetensors",)),
        licence="Lunit non-commercial licence",
        commercial=False,
        gated=False,
        access=f"Public at https://huggingface.co/{repository} and as a release of "
        "https://github.com/lunit-io/benchmark-ssl-pathology.",
        citation="Kang et al. 2023, Benchmarking Self-Supervised Learning on Diverse Pathology Datasets, "
        "CVPR, arXiv:2212.04690",
        verified=(
            "width and parameters: the architecture was built",
            "construction and names: Lunit's README loads its release into this timm network",
            "mean and standard deviation: slide2vec, eva and other users agree",
            "crop: slide2vec documents the hub's timm configuration as resize 248, crop 224",
        ),
        unverified=("features: not compared with the publisher's weights",),
    )


_CTRANSPATH = Preset(
    key="ctranspath",
    title="CTransPath",
    architecture=Architecture(
        "conv_stem_swin", "swin_tiny_patch4_window7_224", names="timm_0_5", left_over=("head.",)
    ),
    recipe=Recipe(224, 224, "bilinear", *IMAGENET),
    pooling="mean",
    width=768,
    parameters=27_520_038,
    published="27.5M",
    published_by="LazySlide's registry",
    mpp=(1.0,),
    tile_px=224,
    hub=None,
    licence="GPL-3.0, for non-commercial academic purposes",
    commercial=False,
    gated=False,
    access="Download ctranspath.pth from the link in https://github.com/Xiyue-Wang/TransPath and import it.",
    citation="Wang et al. 2022, Transformer-based unsupervised contrastive learning for histopathological "
    "image classification, Medical Image Analysis, doi:10.1016/j.media.2022.102559",
    sha256=("7c998680060c8743551a412583fac689db43cec07053b72dfec6dcd810113539",),
    verified=(
        "width and parameters: the architecture was built",
        "names and arithmetic: equal to the timm 0.5.4 that CTransPath asks for, on a small random network",
        "preprocessing, 1.0 µm per pixel and licence: the authors' README and get_features_CTransPath.py",
        "SHA-256 of ctranspath.pth: STAMP publishes it",
    ),
    unverified=("features: not compared with the publisher's weights",),
)

PRESETS = (
    _lunit(8, 21_670_272),
    _lunit(16, 21_665_664),
    _CTRANSPATH,
    replace(
        _CTRANSPATH,
        key="ctranspath_chief",
        title="CTransPath as retrained for CHIEF (TRIDENT's ctranspath)",
        hub=Hub("MahmoodLab/hest-bench", ("fm_v1/ctranspath/CHIEF_CTransPath.pth",), kind="dataset"),
        licence="AGPL-3.0, for non-commercial academic purposes",
        access="Public at https://huggingface.co/datasets/MahmoodLab/hest-bench.",
        citation="Wang et al. 2024, A pathology foundation model for cancer diagnosis and prognosis "
        "prediction, Nature, doi:10.1038/s41586-024-07894-z",
        tile_px=256,
        sha256=(),
        verified=(*_CTRANSPATH.verified[:2], "preprocessing and file: TRIDENT"),
    ),
    Preset(
        key="gigapath",
        title="Prov-GigaPath (tile encoder)",
        architecture=Architecture(
            "vit",
            "vit_giant_patch14_dinov2",
            {
                "img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24,
                "mlp_ratio": 5.33334, "init_values": 1e-5, "dynamic_img_size": True,
            },
        ),
        recipe=Recipe(256, 224, "bicubic", *IMAGENET),
        pooling="class",
        width=1536,
        parameters=1_134_953_984,
        published="1134953984",
        published_by="FLOP table of a public benchmark; LazySlide's registry 1.13B",
        mpp=(0.5,),
        tile_px=256,
        hub=Hub("prov-gigapath/prov-gigapath", ("pytorch_model.bin",)),
        licence="Apache-2.0 with conditions: research only, no clinical or other deployed use",
        commercial=False,
        gated=True,
        access="Accept the terms at https://huggingface.co/prov-gigapath/prov-gigapath, then set HF_TOKEN.",
        citation="Xu et al. 2024, A whole-slide foundation model for digital pathology from real-world data, "
        "Nature, doi:10.1038/s41586-024-07441-w",
        verified=(
            "width and parameters: the architecture was built",
            "construction and names: TRIDENT loads the file strictly into this timm network",
            "preprocessing and terms: the publisher's README; TRIDENT too (resize 256 bicubic, crop 224)",
        ),
        unverified=("features: not compared with the publisher's, whose weights are gated",),
    ),
    Preset(
        key="gpfm",
        title="GPFM",
        architecture=Architecture(
            "vit",
            "vit_large_patch14_dinov2",
            {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
            names="dinov2",
            left_over=("mask_token", "dino_head.", "ibot_head."),
        ),
        recipe=Recipe(224, 224, "bicubic", *IMAGENET),
        pooling="class",
        width=1024,
        parameters=303_227_904,
        published="",
        published_by="slide2vec loads the real file strictly into this network",
        mpp=(0.25,),
        tile_px=512,
        hub=Hub("majiabo/GPFM", ("GPFM.pth",)),
        licence="MIT",
        commercial=True,
        gated=False,
        access="Public at https://huggingface.co/majiabo/GPFM.",
        citation="Ma et al. 2024, Towards A Generalizable Pathology Foundation Model via Unified Knowledge "
        "Distillation, arXiv:2407.18449",
        verified=(
            "width and parameters: the architecture was built",
            "construction and names: slide2vec reports a strict load of the real file into this timm network",
            "preprocessing: TRIDENT and slide2vec agree; native tiles: GPFM's README (512 px at 40×)",
        ),
        unverified=("features: not compared with the publisher's weights",),
    ),
)  # fmt: skip
