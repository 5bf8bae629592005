"""Tissue and tile grid of all slides by one program: ``tissue.py PROGRAM JOB``.

The job names the ``slides`` (a folder), ``out``, and whether our program shall prepare slides as
``extract`` does (``prepared``). Tiles of 224 px at 0.5 µm of which at least a quarter is tissue where the
program has that setting; else its defaults. The tiles go into the file ``boxes`` as ``x, y, width, height``
at level 0, by slide.
"""

import json
import re
from pathlib import Path

from common import Job, ready, run

TILE_PX, MPP, MIN_TISSUE = 224, 0.5, 0.25
Boxes = dict[str, list[list[float]]]


def slides_of(job: Job) -> list[Path]:
    """The slides, in order."""
    return sorted(Path(job["slides"]).iterdir())


def from_coords(folder: Path, pattern: str) -> Boxes:
    """Boxes of HDF5 files with ``coords``, as CLAM's and its descendants'."""
    import h5py

    boxes: Boxes = {}
    for path in folder.glob(pattern):
        with h5py.File(path) as file:
            coords = file["coords"]
            known = dict(coords.attrs)
            edge = float(known["patch_size_level0"] if "patch_size_level0" in known else known["patch_size"])
            boxes[path.stem.removesuffix("_patches")] = [[*map(float, xy), edge, edge] for xy in coords[:]]
    return boxes


def ours(job: Job) -> Boxes:
    """Mask and grid, or all that ``wsi-ncmi extract`` prepares: artefacts and thumbnail, too."""
    from wsi_ncmi.encoders import EncoderConfig
    from wsi_ncmi.extraction.config import ExtractConfig
    from wsi_ncmi.extraction.slide import prepare_slide
    from wsi_ncmi.extraction.task import SlideTask
    from wsi_ncmi.slides import open_slide, take_inventory
    from wsi_ncmi.tiling import GridConfig, TileGrid, select_tiles
    from wsi_ncmi.tissue import segment_tissue

    ready()
    root = Path(job["slides"])
    grid = GridConfig(mpp=MPP, tile_px=TILE_PX, overlap_px=0, allow_upsample=True, min_tissue=MIN_TISSUE)
    config = ExtractConfig(
        slides=root, out=Path(job["out"]), encoder=EncoderConfig(name="descriptor"), grid=grid
    )
    boxes: Boxes = {}
    for record in take_inventory(root):
        task = SlideTask(record=record, config=config)
        with open_slide(task.slide_path) as slide:
            if job["prepared"]:
                prepared = prepare_slide(task, slide)
                found, chosen = prepared.grid, prepared.selection
            else:
                found = TileGrid.plan(slide.levels, task.mpp, grid)
                chosen = select_tiles(found, segment_tissue(slide, task.mpp, config.tissue), MIN_TISSUE)
        size = [float(edge) for edge in found.tile_size_level0]
        boxes[record.slide_id] = [[float(x), float(y), *size] for x, y in chosen.coords.tolist()]
    return boxes


def hs2p(job: Job) -> Boxes:
    """``tile_slides``."""
    import numpy as np
    from hs2p import SegmentationConfig, SlideSpec, TilingConfig, tile_slides

    ready()
    out = Path(job["out"])
    tiling = TilingConfig(
        requested_spacing_um=MPP, requested_tile_size_px=TILE_PX, tolerance=0.05, overlap=0.0
    )
    tile_slides(
        [SlideSpec(sample_id=path.stem, image_path=path) for path in slides_of(job)],
        tiling=tiling,
        segmentation=SegmentationConfig(method="hsv", downsample=64),
        output_dir=out,
        num_workers=1,
    )
    boxes: Boxes = {}
    for path in out.rglob("*.coordinates.npz"):
        known = path.with_name(path.name.replace(".npz", ".meta.json")).read_text("utf-8")
        found = re.search(r'"tile_size_lv0": (\d+)', known)
        assert found is not None
        edge, tiles = float(found[1]), np.load(path)
        places = zip(tiles["x"].tolist(), tiles["y"].tolist(), strict=True)
        boxes[path.name.split(".")[0]] = [[float(x), float(y), edge, edge] for x, y in places]
    return boxes


def lazyslide(job: Job) -> Boxes:
    """``find_tissues``, ``tile_tissues``."""
    import lazyslide as zs
    from wsidata import open_wsi

    ready()
    boxes: Boxes = {}
    for path in slides_of(job):
        slide = open_wsi(str(path), store=None)
        zs.pp.find_tissues(slide)
        zs.pp.tile_tissues(slide, TILE_PX, mpp=MPP)
        bounds = slide["tiles"].geometry.bounds.to_numpy().tolist()
        boxes[path.stem] = [[x, y, right - x, bottom - y] for x, y, right, bottom in bounds]
    return boxes


def tiatoolbox(job: Job) -> Boxes:
    """``WSIReader.tissue_mask``, ``SlidingWindowPatchExtractor``."""
    from tiatoolbox.tools.patchextraction import SlidingWindowPatchExtractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    ready()
    boxes: Boxes = {}
    for path in slides_of(job):
        reader = WSIReader.open(path)
        mask = reader.tissue_mask("morphological", resolution=8.0, units="mpp")
        tiles = SlidingWindowPatchExtractor(
            reader,
            TILE_PX,
            input_mask=mask,
            resolution=MPP,
            units="mpp",
            min_mask_ratio=MIN_TISSUE,
            within_bound=True,
        )
        scale = MPP / float(reader.info.mpp[0])
        boxes[path.stem] = [
            [x * scale, y * scale, (right - x) * scale, (bottom - y) * scale]
            for x, y, right, bottom in tiles.coordinate_list.tolist()
        ]
    return boxes


def wsinfer(job: Job) -> Boxes:
    """``segment_and_patch_directory_of_slides``."""
    import wsinfer_zoo.client

    wsinfer_zoo.client.load_registry = lambda *_, **__: (
        None
    )  # the import asks a model hub, which this needs not
    from wsinfer.patchlib import segment_and_patch_directory_of_slides

    ready()
    segment_and_patch_directory_of_slides(
        wsi_dir=Path(job["slides"]), save_dir=Path(job["out"]), patch_size_px=TILE_PX, patch_spacing_um_px=MPP
    )
    return from_coords(Path(job["out"]), "patches/*.h5")


def trident(job: Job) -> Boxes:
    """``Processor`` with Otsu's segmentation (its networks need a download)."""
    from trident import Processor
    from trident.segmentation_models import segmentation_model_factory

    ready()
    processor = Processor(job_dir=job["out"], wsi_source=job["slides"], max_workers=2)
    processor.run_segmentation_job(segmentation_model_factory("otsu"), device="cpu")
    processor.run_patching_job(
        target_magnification=20,
        patch_size=TILE_PX,
        overlap=0,
        saveto="tiles",
        min_tissue_proportion=MIN_TISSUE,
    )
    return from_coords(Path(job["out"]), "tiles/patches/*.h5")


def written(found: Boxes, job: Job) -> Job:
    """Leaves the boxes beside the output."""
    Path(job["boxes"]).write_text(json.dumps(found), "utf-8")
    return {"tiles": sum(map(len, found.values()))}


PROGRAMS = {
    "ours": lambda job: written(ours(job), job),
    "hs2p": lambda job: written(hs2p(job), job),
    "lazyslide": lambda job: written(lazyslide(job), job),
    "tiatoolbox": lambda job: written(tiatoolbox(job), job),
    "wsinfer": lambda job: written(wsinfer(job), job),
    "trident": lambda job: written(trident(job), job),
}

if __name__ == "__main__":
    run(PROGRAMS)
