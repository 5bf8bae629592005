"""A whole extraction by one program: ``extraction.py PROGRAM JOB``.

The job names the ``slides`` (a folder), ``out``, ``network`` with its ``weights``, and ``batch``. Tiles of
224 px at 0.5 µm; each program finds tissue in its own way, so the tiles differ, and the time a tile counts.
Each one's functions are called as its documentation says, with its defaults but for the network, the size of
tiles and the batch.
"""

import csv
import runpy
from pathlib import Path
from typing import Any

from common import Job, command, run

TILE_PX, MPP = 224, 0.5
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def network(job: Job) -> Any:
    """The one network of all programs, without its classifier, on one thread."""
    import torch
    import torchvision

    torch.set_num_threads(1)
    model = getattr(torchvision.models, job["network"])(weights=None)
    model.load_state_dict(torch.load(job["weights"], map_location="cpu"))
    if hasattr(model, "fc"):
        model.fc = torch.nn.Identity()
        return model.eval()
    return torch.nn.Sequential(model.features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()


def transform() -> Any:
    """ImageNet's normalisation of a tile."""
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def rows_of(folder: Path, pattern: str, name: str) -> int:
    """Tiles in all HDF5 files."""
    import h5py

    count = 0
    for path in folder.glob(pattern):
        with h5py.File(path) as file:
            count += len(file[name])
    return count


def ours(job: Job) -> Job:
    """``wsi-ncmi extract``."""
    from wsi_ncmi.cli.app import main

    arguments = [job["slides"], "--out", job["out"], "--encoder", f"torchvision:{job['network']}"]
    arguments += ["--weights", job["weights"], "--mpp", str(MPP), "--tile-px", str(TILE_PX)]
    command(main, ["wsi-ncmi", "extract", *arguments])
    return {"tiles": rows_of(Path(job["out"]), "features/*/*.h5", "features")}


def clam(job: Job) -> Job:
    """``create_patches_fp.py`` (448 px of level 0 are 224 px at 0.5 µm), ``extract_features_fp.py``.

    With CLAM's preset for small tissue, as its default takes none of the tiny slide.
    """
    import models
    from torchvision import transforms

    net, out = network(job), job["out"]
    resized = transforms.Compose([transforms.Resize(TILE_PX), transform()])
    models.get_encoder = lambda *_, **__: (net, resized)

    def call(script: str, **options: object) -> None:
        words = [script]
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        command(lambda: runpy.run_path(script, run_name="__main__"), words)

    call(
        "create_patches_fp.py",
        preset="bwh_biopsy.csv",
        source=job["slides"],
        save_dir=out,
        patch_size=448,
        step_size=448,
        seg=True,
        patch=True,
    )
    call(
        "extract_features_fp.py",
        data_h5_dir=out,
        data_slide_dir=job["slides"],
        feat_dir=out + "/features",
        csv_path=out + "/process_list_autogen.csv",
        batch_size=job["batch"],
        slide_ext=".svs",
    )
    return {"tiles": rows_of(Path(out), "features/h5_files/*.h5", "features")}


def stamp(job: Job) -> Job:
    """``stamp.preprocessing.extract_``."""
    from stamp.preprocessing import extract_
    from stamp.preprocessing.extractor import Extractor

    extractor = Extractor(model=network(job), transform=transform(), identifier="net")
    extract_(
        wsi_dir=Path(job["slides"]),
        output_dir=Path(job["out"]),
        wsi_list=None,
        cache_dir=None,
        cache_tiles_ext="jpg",
        extractor=extractor,
        tile_size_px=TILE_PX,
        tile_size_um=TILE_PX * MPP,
        max_workers=2,
        device="cpu",
        default_slide_mpp=None,
        brightness_cutoff=240,
        canny_cutoff=0.02,
        generate_hash=False,
    )
    return {"tiles": rows_of(Path(job["out"]), "net/*.h5", "feats")}


def trident(job: Job) -> Job:
    """``Processor``: Otsu's segmentation (its networks need a download), patches, features."""
    import torch
    from trident import Processor
    from trident.patch_encoder_models.load import CustomInferenceEncoder
    from trident.segmentation_models import segmentation_model_factory

    encoder = CustomInferenceEncoder("net", network(job), transform(), torch.float32)
    processor = Processor(job_dir=job["out"], wsi_source=job["slides"], max_workers=2)
    processor.run_segmentation_job(segmentation_model_factory("otsu"), device="cpu", batch_size=job["batch"])
    processor.run_patching_job(
        target_magnification=20, patch_size=TILE_PX, overlap=0, saveto="tiles", min_tissue_proportion=0.25
    )
    processor.run_patch_feature_extraction_job(
        coords_dir="tiles", patch_encoder=encoder, device="cpu", saveas="h5", batch_limit=job["batch"]
    )
    return {"tiles": rows_of(Path(job["out"]), "tiles/features_net/*.h5", "features")}


def lazyslide(job: Job) -> Job:
    """``find_tissues``, ``tile_tissues``, ``feature_extraction``."""
    import lazyslide as zs
    from wsidata import open_wsi

    net, tiles = network(job), 0
    for path in sorted(Path(job["slides"]).iterdir()):
        slide = open_wsi(str(path), store=f"{job['out']}/{path.stem}.zarr")
        zs.pp.find_tissues(slide)
        zs.pp.tile_tissues(slide, TILE_PX, mpp=MPP)
        zs.tl.feature_extraction(
            slide,
            net,
            model_name="net",
            transform=transform(),
            batch_size=job["batch"],
            num_workers=0,
            device="cpu",
            amp=False,
            pbar=False,
        )
        tiles += len(slide["tiles"])
        slide.write()
    return {"tiles": tiles}


def tiatoolbox(job: Job) -> Job:
    """``DeepFeatureExtractor`` with its own tissue mask."""
    import torch
    import zarr
    from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.models_abc import ModelABC

    normalised = transform()

    class Network(ModelABC):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(job)

        def forward(self, batch: Any) -> Any:
            return self.network(batch)

        @staticmethod
        def preproc(tile: Any) -> Any:
            return normalised(tile.copy()).permute(1, 2, 0).numpy()

        @staticmethod
        def infer_batch(model: Any, batch: Any, device: str) -> Any:
            del device
            with torch.inference_mode():
                return [model(batch.permute(0, 3, 1, 2).contiguous().float()).numpy()]

    net = Network()
    net.preproc_func = net.preproc
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": MPP}],
        patch_input_shape=[TILE_PX] * 2,
        stride_shape=[TILE_PX] * 2,
    )
    extractor = DeepFeatureExtractor(net, batch_size=job["batch"], num_workers=0, device="cpu", verbose=False)
    extractor.run(
        sorted(Path(job["slides"]).iterdir()),
        patch_mode=False,
        ioconfig=config,
        save_dir=job["out"],
        output_type="zarr",
        auto_get_mask=True,
        overwrite=True,
    )
    written = [zarr.open(path, mode="r") for path in Path(job["out"]).glob("*.zarr")]
    return {"tiles": sum(group["coordinates"].shape[0] for group in written)}


def slide2vec(job: Job) -> Job:
    """``Pipeline`` with a registered encoder."""
    import numpy as np
    import torch
    from hs2p import TilingConfig
    from slide2vec import ExecutionOptions, Model, Pipeline, PreprocessingConfig
    from slide2vec.encoders.base import TileEncoder
    from slide2vec.encoders.registry import register_encoder
    from torchvision.transforms import v2

    @register_encoder(
        "net",
        encode_dim=512,
        input_size=TILE_PX,
        supported_spacing_um=MPP,
        precision="fp32",
        source="local",
        level="tile",
        supports_variable_input_size=False,
    )
    class Network(TileEncoder):
        encode_dim = 512
        device = torch.device("cpu")

        def __init__(self, *, output_variant: object = None) -> None:
            del output_variant
            self.network = network(job)

        def get_transform(self) -> Any:
            return transform()

        def get_normalization_transform(self) -> Any:
            steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
            return v2.Compose(steps)

        def encode_tiles(self, batch: Any) -> Any:
            return self.network(batch)

        def to(self, device: object) -> "Network":
            del device
            return self

    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    with (out / "slides.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["sample_id", "image_path"])
        rows.writerows([path.stem, str(path)] for path in sorted(Path(job["slides"]).iterdir()))
    tiling = TilingConfig(
        requested_spacing_um=MPP, requested_tile_size_px=TILE_PX, tolerance=0.05, overlap=0.0
    )
    options = ExecutionOptions(
        output_dir=str(out), output_format="npz", batch_size=job["batch"], precision="fp32", num_gpus=1
    )
    model = Model.from_preset("net", device="cpu")
    pipeline = Pipeline(model=model, preprocessing=PreprocessingConfig(tiling=tiling), execution=options)
    pipeline.run(manifest_path=str(out / "slides.csv"))
    return {"tiles": sum(len(np.load(path)["features"]) for path in out.glob("tile_embeddings/*.npz"))}


PROGRAMS = {
    "ours": ours,
    "clam": clam,
    "stamp": stamp,
    "trident": trident,
    "lazyslide": lazyslide,
    "tiatoolbox": tiatoolbox,
    "slide2vec": slide2vec,
}

if __name__ == "__main__":
    run(PROGRAMS)
