"""Feature files as the other tools write them, made plainly with h5py and torch."""

from __future__ import annotations

import h5py
import numpy as np
import torch

from wsi_ncmi.features import SlideAttributes, write_features
from wsi_ncmi.features.schema import FEATURES_SCHEMA, Identity

WIDTH = 6


def features_of(n, seed=0, dtype=np.float16):
    return np.random.default_rng(seed).normal(0, 1, (n, WIDTH)).astype(np.float16).astype(dtype)


def grid_coords(n, step=512):
    """Raster order, five tiles a row."""
    index = np.arange(n)
    return np.stack([index % 5, index // 5], axis=1).astype(np.int64) * step


def ours(
    folder, slide_id, n=12, seed=0, mpp=0.25, tile_px=256, mpp_target=0.5, encoder="uni_v1", size=(4000, 5000)
):
    folder.mkdir(parents=True, exist_ok=True)
    identity = Identity(
        schema=FEATURES_SCHEMA, slide_fingerprint="f", mpp_level0_x=mpp, mpp_level0_y=mpp, mpp_target=mpp_target,
        tile_px=tile_px, overlap_px=0, min_tissue=0.25, tissue_method="otsu", tissue_parameters="{}",
        artifacts_rule="keep", encoder=encoder, encoder_weights_sha256="ab", transform="t", precision="fp32",
        backend="torch",
    )  # fmt: skip
    edge = tile_px * mpp_target / mpp
    slide = SlideAttributes(slide_id, *size, "openslide", "properties", 0, (edge, edge))
    features, coords = features_of(n, seed), grid_coords(n, round(edge))
    write_features(
        folder / f"{slide_id}.h5", features=features, coords=coords, identity=identity, slide=slide,
        tissue_fraction=np.ones(n, np.float16),
    )  # fmt: skip
    return features, coords


def clam(folder, slide_id, n=12, seed=0, *, h5=True, pt=True, patches=False, shuffle=False, dtype=np.float32):
    features, coords = features_of(n, seed, dtype), grid_coords(n)
    if shuffle:
        order = np.random.default_rng(seed).permutation(n)
        features, coords = features[order], coords[order]
    if h5:
        (folder / "h5_files").mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "h5_files" / f"{slide_id}.h5", "w") as handle:
            handle.create_dataset("features", data=features, chunks=(32, WIDTH), maxshape=(None, WIDTH))
            handle.create_dataset("coords", data=coords.astype(np.int32), chunks=(32, 2), maxshape=(None, 2))
    if pt:
        (folder / "pt_files").mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(features), folder / "pt_files" / f"{slide_id}.pt")
    if patches:
        (folder / "patches").mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "patches" / f"{slide_id}.h5", "w") as handle:
            handle["coords"] = coords
            handle["coords"].attrs.update(
                {
                    "patch_size": 256, "patch_level": 1, "downsample": np.array([2.0, 2.0]),
                    "downsampled_level_dim": np.array([2000, 2500]), "level_dim": np.array([2000, 2500]),
                    "name": slide_id, "save_path": "results/patches",
                }
            )  # fmt: skip
    return features, coords


def trident(folder, slide_id, n=12, seed=0, encoder="uni_v1", attrs=True, dtype=np.float32):
    folder.mkdir(parents=True, exist_ok=True)
    features, coords = features_of(n, seed, dtype), grid_coords(n)
    with h5py.File(folder / f"{slide_id}.h5", "w") as handle:
        chunks = (1, WIDTH) if n else None
        table = handle.create_dataset(
            "features", data=features, chunks=chunks or (1, WIDTH), maxshape=(None, WIDTH)
        )
        table.attrs["encoder"] = encoder
        places = handle.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
        if attrs:
            places.attrs.update(
                {
                    "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
                    "target_magnification": 20, "overlap": 0, "name": slide_id, "savetodir": "out/coords",
                    "level0_width": 4000, "level0_height": 5000,
                }
            )  # fmt: skip
    return features, coords


def stamp(folder, slide_id, n=12, seed=0, form="2.1"):
    folder.mkdir(parents=True, exist_ok=True)
    features = features_of(n, seed)
    tiles = grid_coords(n, 1)
    with h5py.File(folder / f"{slide_id}.h5", "w") as handle:
        handle["feats"] = features
        if form == "old":
            handle["coords"] = tiles * 224
            handle["augmented"] = np.zeros(n, bool)
            handle.attrs["extractor"] = "STAMP-extract-ctranspath"
        else:
            handle["coords"] = (tiles * 256.0).astype(np.float32)
            handle.attrs.update({"extractor": "ctranspath", "unit": "um", "stamp_version": "2.1.0"})
            if form == "2.0":
                handle.attrs["tile_size"] = 256.0
            else:
                handle.attrs.update(
                    {"tile_size_um": 256.0, "tile_size_px": 224, "code_hash": "ab", "feat_type": "tile"}
                )
    return features, tiles * 256.0


def acmil(path, slides, labels=True):
    with h5py.File(path, "w") as handle:
        for i, (name, n) in enumerate(slides.items()):
            group = handle.create_group(name)
            group["feat"], group["coords"] = features_of(n, i), grid_coords(n)
            if labels:
                group.attrs["label"] = i % 2
