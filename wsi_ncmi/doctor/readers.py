"""Python, the slide readers and the codecs."""

import contextlib
import ctypes
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wsi_ncmi.doctor.finding import DoctorConfig, Finding

_MAPS = Path("/proc/self/maps")
_SOURCES = re.compile(rb"/pixman-(\d+\.\d+\.\d+)/")
_GOOD_PIXMAN = (0, 40)
_INSTALL = "Install the locked readers: pip install openslide-python openslide-bin."


def python(_: DoctorConfig) -> Iterator[Finding]:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    known = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding.of("python", version, bad=not known, worst="fail", remedy="Use Python 3.11, 3.12 or 3.13.")


def openslide(_: DoctorConfig) -> Iterator[Finding]:
    """The library and its binding."""
    try:
        import openslide
    except (ImportError, OSError) as error:
        yield Finding(
            "openslide", "fail", f"can't be loaded ({' '.join(str(error).split())[:120]})", _INSTALL
        )
        return
    library = openslide.__library_version__
    yield Finding.of(
        "openslide", f"library {library}, binding {openslide.__version__}", bad=_version(library) < (4, 0),
        remedy=f"Version 4 reads more formats and colour profiles. {_INSTALL}",
    )  # fmt: skip


def pixman(_: DoctorConfig, maps: Path = _MAPS) -> Iterator[Finding]:
    """The drawing library behind OpenSlide: 0.38 garbles slides of CAMELYON-17."""
    try:
        import openslide  # noqa: F401 - it loads the library
    except (ImportError, OSError):
        return
    shared = _loaded("libpixman", maps)
    inside = _loaded("libopenslide", maps)
    version = _pixman_version(shared) if shared else _built_in(inside) if inside else ""
    if not version:
        yield Finding("pixman", "warn", "its version can't be told", f"Use a build that is known. {_INSTALL}")
        return
    yield Finding.of(
        "pixman", version if shared else f"{version}, built into OpenSlide's library",
        bad=_version(version) < _GOOD_PIXMAN, worst="fail",
        remedy=f"Before 0.40 it garbles slides, among them CAMELYON-17's. {_INSTALL}",
    )  # fmt: skip


def pixels(_: DoctorConfig) -> Iterator[Finding]:
    """OpenSlide gives back the pixels of a slide that is made for it."""
    try:
        import openslide
    except (ImportError, OSError):
        return
    import numpy as np
    import tifffile

    # Larger than a tile, read across the tiles' borders: there old builds go wrong.
    made = np.random.default_rng(0).integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.tif"
        with tifffile.TiffWriter(path) as writer:
            writer.write(made, tile=(256, 256), photometric="rgb", compression="deflate", metadata=None)
        with openslide.OpenSlide(path) as slide:
            read = np.asarray(slide.read_region((101, 77), 0, (700, 600)).convert("RGB"))
    wrong = int((read != made[77:677, 101:801]).any(axis=2).sum())
    detail = f"{wrong} of {read.shape[0] * read.shape[1]} pixels of a test slide are wrong"
    detail = detail if wrong else "OpenSlide gives back a test slide exactly"
    yield Finding.of("pixels", detail, bad=wrong > 0, worst="fail", remedy=_INSTALL)


def tiffslide(_: DoctorConfig) -> Iterator[Finding]:
    """The second reader."""
    version = _installed("tiffslide")
    yield Finding.of(
        "tiffslide", version or "is not installed", bad=not version,
        remedy="Slides that OpenSlide refuses have no second reader: pip install tiffslide.",
    )  # fmt: skip


def more_readers(_: DoctorConfig) -> Iterator[Finding]:
    """Readers of one format: those of extras that are installed, and plug-ins."""
    from wsi_ncmi.slides import list_readers

    for reader in list_readers():
        if not reader.extensions:
            continue
        reason = reader.unavailable()
        if reason and not reader.name.startswith("plugin:"):
            continue  # most sites have no such slides; those that have are told by their rows
        yield Finding.of(
            f"reader {reader.name}", reason or f"reads {', '.join(reader.extensions)}",
            bad=bool(reason), worst="fail", remedy="Its slides fail, all others don't.",
        )  # fmt: skip


def codecs(_: DoctorConfig) -> Iterator[Finding]:
    """JPEG, JPEG 2000 and the lossless codecs of slide formats, there and back."""
    import imagecodecs
    import numpy as np
    import simplejpeg

    tile = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    ways: dict[str, Callable[[], Any]] = {
        "JPEG": lambda: simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(tile)).tobytes(),
        "JPEG 2000": lambda: imagecodecs.jpeg2k_decode(imagecodecs.jpeg2k_encode(tile)).tobytes(),
        "LZW": lambda: imagecodecs.lzw_decode(imagecodecs.lzw_encode(tile.tobytes())),
        "Deflate": lambda: imagecodecs.zlib_decode(imagecodecs.zlib_encode(tile.tobytes())),
    }
    broken = []
    for name, way in ways.items():
        result = b""
        with contextlib.suppress(Exception):  # whatever a missing or broken library raises
            result = bytes(way())
        lossless = name in ("LZW", "Deflate")
        if len(result) != tile.nbytes or (lossless and result != tile.tobytes()):
            broken.append(name)
    detail = f"broken: {', '.join(broken)}" if broken else "JPEG, JPEG 2000, LZW and Deflate work"
    remedy = "Install imagecodecs and simplejpeg again."
    yield Finding.of("codecs", detail, bad=bool(broken), worst="fail", remedy=remedy)


def _loaded(name: str, maps: Path) -> str | None:
    """The path of a shared library that this process has loaded."""
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[5] for line in lines if line.count("/"))
    return next((path for path in paths if Path(path).name.startswith(name)), None)


def _pixman_version(path: str) -> str:
    function = ctypes.CDLL(path).pixman_version_string
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()


def _built_in(path: str) -> str:
    """The version of a pixman that is part of another library, from the paths of its sources in there."""
    try:
        match = _SOURCES.search(Path(path).read_bytes())
    except OSError:
        return ""
    return match[1].decode() if match else ""


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
