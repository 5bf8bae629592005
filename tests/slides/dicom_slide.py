"""Writes DICOM whole-slide instances from encoded tiles with pydicom (PS3.3 A.32.8, PS3.5 annex A.4)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
SYNTAXES = {
    "none": "1.2.840.10008.1.2.1", "implicit": "1.2.840.10008.1.2", "jpeg": "1.2.840.10008.1.2.4.50",
    "jpegls": "1.2.840.10008.1.2.4.80", "jpegls-lossy": "1.2.840.10008.1.2.4.81",
    "j2k-lossless": "1.2.840.10008.1.2.4.90", "j2k": "1.2.840.10008.1.2.4.91",
}  # fmt: skip
PHOTOMETRIC = {"jpeg": "YBR_FULL_422", "j2k": "YBR_ICT", "j2k-lossless": "YBR_RCT"}


def encode(tile: NDArray[np.uint8], kind: str, *, mct: bool = True) -> bytes:
    """A tile as a stream of a kind of :data:`SYNTAXES`."""
    if kind == "jpeg":
        stream = io.BytesIO()
        Image.fromarray(tile).save(stream, "JPEG", quality=90, subsampling=0)
        return stream.getvalue()
    if kind.startswith("j2k"):
        lossless = kind == "j2k-lossless"
        return bytes(imagecodecs.jpeg2k_encode(
            tile, codecformat="j2k", level=0 if lossless else 40, reversible=lossless, mct=mct
        ))  # fmt: skip
    if kind.startswith("jpegls"):
        return bytes(imagecodecs.jpegls_encode(tile, level=0 if kind == "jpegls" else 2))
    return np.ascontiguousarray(tile).tobytes()


def cut(pixels: NDArray[np.uint8], edge: int) -> list[NDArray[np.uint8]]:
    """Tiles of a level in raster order, those of the edges padded."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % edge), (0, -width % edge), (0, 0)), mode="edge")
    return [padded[y : y + edge, x : x + edge] for y in range(0, height, edge) for x in range(0, width, edge)]


def copied_tiles(svs: Path) -> tuple[list[bytes], tuple[int, int], int]:
    """The JPEG streams of an Aperio slide's first level, whole as they are; its size, and a tile's side.

    Its components are RGB: an Adobe marker says so.
    """
    with tifffile.TiffFile(svs) as file:
        page = file.pages[0]
        tables = page.jpegtables[:-2]
        head = tables[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" + tables[2:]
        frames = []
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.filehandle.seek(offset)
            frames.append(head + file.filehandle.read(count)[2:])
        return frames, (page.imagewidth, page.imagelength), page.tilewidth


def write_level(
    path: Path,
    frames: Sequence[bytes | None],
    size: tuple[int, int],
    edge: int,
    *,
    kind: str,
    photometric: str = "",
    series: str = "1.2.77",
    uid: str = "1.2.77.1",
    mpp: float = 0.25,
    sparse: bool = False,
    offsets: str = "basic",
    part: tuple[int, int, int] | None = None,
    **tags: Any,
) -> None:
    """Writes a level, or a part of one, from encoded tiles.

    Args:
        path: The file.
        frames: Tiles in raster order from the part's first; None: not stored (``sparse`` only).
        size: Width and height of the level.
        edge: A tile's side.
        kind: A key of :data:`SYNTAXES`.
        photometric: What the file says of its colours; by default what is right for what ``encode`` gives.
        series: The slide.
        uid: The object; the level where it has parts.
        mpp: Microns of a pixel.
        sparse: TILED_SPARSE in place of TILED_FULL: tiles from the last to the first, with a place each.
        offsets: Table of the places of frames: basic, extended or empty.
        part: Of a concatenation: number of the part from 1, of how many, and its first frame.
        tags: Further elements by keyword, over those written here; None leaves one out.
    """
    number, parts, first = part or (1, 1, 0)
    kept = [(first + index, frame) for index, frame in enumerate(frames) if frame is not None]
    if sparse:
        kept.reverse()
    spacing = Dataset()
    spacing.PixelSpacing = [mpp / 1000, mpp / 1000]
    spacing.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [spacing]
    if sparse:
        positions = []
        for index, _ in kept:
            place, group = Dataset(), Dataset()
            row, column = divmod(index, -(-size[0] // edge))
            place.ColumnPositionInTotalImagePixelMatrix = column * edge + 1
            place.RowPositionInTotalImagePixelMatrix = row * edge + 1
            group.PlanePositionSlideSequence = [place]
            positions.append(group)
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "SOPClassUID": WHOLE_SLIDE, "SOPInstanceUID": f"{uid}.{number}" if part else uid, "Modality": "SM",
        "StudyInstanceUID": "1.2.9", "SeriesInstanceUID": series, "InstanceNumber": number,
        "DimensionOrganizationType": "TILED_SPARSE" if sparse else "TILED_FULL",
        "SamplesPerPixel": 3, "PhotometricInterpretation": photometric or PHOTOMETRIC.get(kind, "RGB"),
        "PlanarConfiguration": 0, "NumberOfFrames": len(kept), "Rows": edge, "Columns": edge,
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "TotalPixelMatrixColumns": size[0], "TotalPixelMatrixRows": size[1], "TotalPixelMatrixFocalPlanes": 1,
        "ImagedVolumeWidth": size[0] * mpp / 1000, "ImagedVolumeHeight": size[1] * mpp / 1000,
        "ImagedVolumeDepth": 0.001, "NumberOfOpticalPaths": 1, "OpticalPathSequence": [optical],
        "SharedFunctionalGroupsSequence": [shared],
    }  # fmt: skip
    if sparse:
        values["PerFrameFunctionalGroupsSequence"] = positions
    if part:
        values |= {
            "ConcatenationUID": f"{uid}.0", "SOPInstanceUIDOfConcatenationSource": uid,
            "InConcatenationNumber": number, "InConcatenationTotalNumber": parts,
            "ConcatenationFrameOffsetNumber": first,
        }  # fmt: skip
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = WHOLE_SLIDE, values["SOPInstanceUID"]
    meta.TransferSyntaxUID = SYNTAXES[kind]
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    for keyword, value in (values | tags).items():
        if value is not None:
            setattr(file, keyword, value)
    data = [frame for _, frame in kept]
    if kind in ("none", "implicit"):
        joined = b"".join(data)
        file.PixelData = joined + bytes(len(joined) % 2)
    elif offsets == "extended":
        file.PixelData, file.ExtendedOffsetTable, file.ExtendedOffsetTableLengths = encapsulate_extended(data)
    else:
        file.PixelData = encapsulate(data, has_bot=offsets == "basic")
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = kind not in ("none", "implicit")
    file.save_as(path, implicit_vr=kind == "implicit", little_endian=True, enforce_file_format=True)


def write_instance(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    series: str,
    uid: str,
    mpp: float,
    edge: int = 128,
    jpeg2000: bool = False,
) -> None:
    """Writes a level of pixels as a DICOM file; levels of one series are one slide."""
    kind = "j2k" if jpeg2000 else "jpeg"
    frames = [encode(tile, kind) for tile in cut(pixels, edge)]
    height, width = pixels.shape[:2]
    write_level(path, frames, (width, height), edge, kind=kind, series=series, uid=uid, mpp=mpp)
