"""Identity of a slide by its content: fast fingerprints, and a full comparison where two are equal.

A fingerprint hashes the file's size, of a TIFF-based slide the directory entries and the table of stored
tiles (offset and compressed size of every single tile), and sixteen 4-KiB samples spread over the pixel
data. That suffices as an identity: the compressed size of a tile depends on its content, so two scans that
agree in thousands of sizes, in the total and in 64 KiB of samples are copies of each other. It does not see
a later edit in place that changes neither a tile's stored size nor a sample, which no scanner software
does; therefore "duplicate" is said only after a full comparison (:func:`files_sha256`). Of TIFF-based
slides only pyramid tiles are sampled, so bytes of label and macro images do not enter.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_ncmi.slides.tiff_layout import TiffLayout, read_tiff_layout

_VERSION = b"wsi-ncmi fingerprint 1\n"
_SAMPLES = 16
_SAMPLE_BYTES = 4096


def fingerprint(path: Path, companions: Sequence[Path] = ()) -> str:
    """The content fingerprint of a slide.

    Args:
        path: The slide's main file.
        companions: Further files of a multi-file slide (MRXS data, DICOM series), in any order.

    Returns:
        32 hex digits that do not depend on names, times or place.

    Raises:
        OSError: A file can't be read.
    """
    digest = hashlib.sha256(_VERSION)
    digest.update(_file_digest(path))
    for part in sorted(_file_digest(companion) for companion in companions):
        digest.update(part)
    return digest.hexdigest()[:32]


def files_sha256(path: Path, companions: Sequence[Path] = ()) -> str:
    """SHA-256 over all bytes of a slide's files; slow, for confirming that two slides are the same."""
    parts = []
    for file in (path, *companions):
        with file.open("rb") as handle:
            parts.append(hashlib.file_digest(handle, "sha256").digest())
    return hashlib.sha256(parts[0] + b"".join(sorted(parts[1:]))).hexdigest()


def _file_digest(path: Path) -> bytes:
    layout = read_tiff_layout(path)
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        digest = hashlib.sha256(size.to_bytes(8, "little"))
        spans = _pixel_spans(layout, size)
        if layout is not None:
            for directory in layout.pixel_directories:
                digest.update(directory.entries)
                digest.update(directory.offsets.astype("<u8").tobytes())
                digest.update(directory.byte_counts.astype("<u8").tobytes())
        for start, length in spans:
            handle.seek(start)
            digest.update(handle.read(length))
    return digest.digest()


def _pixel_spans(layout: TiffLayout | None, size: int) -> list[tuple[int, int]]:
    """Sixteen spans (offset, length) spread evenly over the pixel data (the whole file if not TIFF)."""
    starts, lengths = np.zeros(1, dtype=np.int64), np.array([size], dtype=np.int64)
    if layout is not None and not layout.damage and layout.pixel_directories:
        directories = layout.pixel_directories
        starts = np.concatenate([directory.offsets for directory in directories]).astype(np.int64)
        lengths = np.concatenate([directory.byte_counts for directory in directories]).astype(np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    spans = []
    for position in np.linspace(0, max(total - _SAMPLE_BYTES, 0), _SAMPLES).astype(np.int64):
        index = min(int(np.searchsorted(ends, position, side="right")), len(ends) - 1)
        if index < 0:
            break
        inside = int(position - (ends[index] - lengths[index]))
        spans.append((int(starts[index]) + inside, min(_SAMPLE_BYTES, int(lengths[index]) - inside)))
    return spans
