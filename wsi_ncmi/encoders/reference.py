"""Reference vectors: what an encoder gives for known tiles, in a file that anyone can make and compare with.

A reference file (``.npz``, no pickles) holds ``vectors``, float32 (n, D); ``about``, a JSON text, the fields
of :class:`About`; and, where its tiles are not the probe tiles of this package, ``tiles``, uint8
(n, h, h, 3).
"""

import datetime
import importlib.metadata
import json
import platform
import zipfile
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.core.files import atomic_path, check_inflation
from wsi_ncmi.core.values import printable
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.probe import PROBE, probe_tiles, tiles_sha256

__all__ = [
    "About", "Comparison", "Reference", "compare_with", "encode_probe", "find_reference", "read_reference",
    "shipped_references", "write_reference",
]  # fmt: skip

SCHEMA = "wsi-ncmi-reference/1"
LEAST_COSINE = 0.9999
"""A tile's cosine below this is another network, other weights or another preprocessing."""
LARGEST_DIFFERENCE = 0.02
"""Largest difference of a value, as a share of the tile's largest value: half precision stays below it."""

_UNKNOWN = "unknown"
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "lazyslide-models", "numpy")


@dataclass(frozen=True)
class About:
    """The fields that say what the vectors of a file are.

    Attributes:
        schema: Of the file.
        encoder: Full name of the encoder.
        transform: What was done to the pixels, as ``EncoderInfo.transform``; may be ``unknown``.
        weights_sha256: Of the tensors in use, same.
        tiles: Name of the set of tiles: the probe, or ``own``.
        tiles_sha256: Of the tiles (:func:`wsi_ncmi.encoders.probe.tiles_sha256`).
        precision: Of the forward pass.
        backend: Same.
        by: Who made it.
        date: Day, ISO 8601.
        versions: Versions of the packages, by name.
        source: Where vectors that others published come from, and their licence.
    """

    schema: str
    encoder: str
    transform: str
    weights_sha256: str
    tiles: str
    tiles_sha256: str
    precision: str
    backend: str
    by: str
    date: str
    versions: dict[str, str]
    source: str = ""


@dataclass(frozen=True)
class Reference:
    """A reference file, read.

    Attributes:
        about: What it is.
        vectors: float32 (n, D).
        tiles: Sets of tiles, uint8 (n, h, h, 3), in the order of the vectors.
    """

    about: About
    vectors: NDArray[np.float32]
    tiles: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True)
class Comparison:
    """An encoder held against a reference.

    Attributes:
        reference: The reference.
        here: The same fields of the encoder on this machine.
        cosine: Of each tile, float64 (n,).
        difference: Largest of each tile's values, as a share of the reference's largest.
        edges: Edge of each tile, px.
    """

    reference: About
    here: About
    cosine: NDArray[np.float64]
    difference: NDArray[np.float64]
    edges: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """True if no tile differs by more than half precision explains."""
        return bool((self.cosine >= LEAST_COSINE).all() and (self.difference <= LARGEST_DIFFERENCE).all())

    def markdown(self) -> str:
        """The report, to be pasted into an issue; no path, user or host name is in it."""
        verdict = "equal" if self.equal else "DIFFERENT"
        fields = ("encoder", "weights_sha256", "transform", "precision", "backend", "date", "by", "source")
        theirs, ours = asdict(self.reference), asdict(self.here)
        rows = [
            f"| {name} | {_cell(theirs[name])} | {_cell(ours[name])} |" for name in fields if theirs[name]
        ]
        versions = [
            f"| {key} | {theirs['versions'].get(key, '')} | {value} |"
            for key, value in ours["versions"].items()
        ]
        tiles = [
            f"| {number} | {edge} | {cosine:.7f} | {100 * difference:.4f} % |"
            for number, (edge, cosine, difference) in enumerate(
                zip(self.edges, self.cosine, self.difference, strict=True), 1
            )
        ]
        return "\n".join([
            f"### Encoder `{self.here.encoder}`: {verdict} to the reference",
            "",
            f"Smallest cosine {self.cosine.min():.7f} (at least {LEAST_COSINE}), largest difference "
            f"{100 * self.difference.max():.4f} % of the tile's largest value (at most "
            f"{100 * LARGEST_DIFFERENCE:g} %), {len(self.cosine)} tiles ({self.reference.tiles}).",
            "",
            "| | reference | here |", "|---|---|---|", *rows, *versions,
            "",
            "| tile | px | cosine | largest difference |", "|--:|--:|--:|--:|", *tiles,
        ])  # fmt: skip


def _cell(text: str) -> str:
    return printable(text.replace("\n", " ")).replace("|", "\\|")


def encode_probe(encoder: Encoder, *, by: str = "") -> Reference:
    """What an encoder gives for the probe tiles, as a reference.

    Args:
        encoder: The encoder.
        by: Who makes it; no name is looked up.
    """
    tiles = probe_tiles()
    vectors = np.concatenate([encoder.encode(each) for each in tiles])
    return Reference(_about(encoder, PROBE, tiles_sha256(tiles), by), vectors, tiles)


def _about(encoder: Encoder, tiles: str, digest: str, by: str) -> About:
    info = encoder.info
    return About(
        schema=SCHEMA,
        encoder=info.name,
        transform=info.transform,
        weights_sha256=info.weights_sha256,
        tiles=tiles,
        tiles_sha256=digest,
        precision=info.precision,
        backend=info.backend,
        by=by or _UNKNOWN,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        versions={"wsi-ncmi": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES if _version(name)},
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def compare_with(encoder: Encoder, reference: Reference) -> Comparison:
    """Holds an encoder against a reference.

    Raises:
        InputError: The vectors have another length than the encoder's.
    """
    width = reference.vectors.shape[1]
    if width != encoder.info.embed_dim:
        raise InputError(
            f"The reference of {reference.about.encoder} has vectors of {width} values, and "
            f"{encoder.info.name} gives {encoder.info.embed_dim}; compare the same encoder."
        )
    found = np.concatenate([encoder.encode(each) for each in reference.tiles]).astype(np.float64)
    expected = reference.vectors.astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    largest = np.abs(expected).max(axis=1)
    return Comparison(
        reference=reference.about,
        here=_about(encoder, reference.about.tiles, reference.about.tiles_sha256, "this run"),
        cosine=(found * expected).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny),
        difference=np.abs(found - expected).max(axis=1) / np.maximum(largest, np.finfo(float).tiny),
        edges=tuple(tiles.shape[1] for tiles in reference.tiles for _ in tiles),
    )


def write_reference(reference: Reference, path: Path) -> Path:
    """Writes a reference file.

    Args:
        reference: The reference.
        path: ``.npz``.
    """
    arrays = {"about": np.array(json.dumps(asdict(reference.about))), "vectors": reference.vectors}
    if reference.about.tiles != PROBE:
        arrays["tiles"] = np.concatenate(reference.tiles)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    return path


def read_reference(path: Path) -> Reference:
    """Reads a reference file; nothing in it is executed.

    Raises:
        InputError: It is none, its tiles aren't those it was made with, or the probe has changed.
    """
    try:
        check_inflation(path)
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file")
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as content:
            about = TypeAdapter(About).validate_json(str(content["about"]))
            vectors = np.asarray(content["vectors"])
            tiles = (np.asarray(content["tiles"]),) if "tiles" in content else probe_tiles()
        if about.schema != SCHEMA:
            raise ValueError(f"its schema is {about.schema!r}, not {SCHEMA}")
        if vectors.ndim != 2 or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise ValueError(f"its vectors are {vectors.dtype} {vectors.shape}, not float32 (n, D), finite")
        for each in tiles:
            Encoder.check(each)
        if sum(len(each) for each in tiles) != len(vectors) or not len(vectors):
            raise ValueError(f"it has {len(vectors)} vectors for {sum(len(each) for each in tiles)} tiles")
        if tiles_sha256(tiles) != about.tiles_sha256:
            raise ValueError("its tiles are not those that it was made with")
    except ValidationError as error:
        wrong = error.errors()[0]
        raise _unreadable(path, f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from error
    except Exception as error:  # what numpy and zlib raise over damaged bytes is not documented
        raise _unreadable(path, first_line(error)) from error
    return Reference(about, vectors, tiles)


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(f"The reference {path.name} can't be read ({reason}); fetch or make it again.")


def shipped_references() -> dict[str, Path]:
    """The reference files of this package, by name."""
    folder = Path(str(resources.files("wsi_ncmi.encoders") / "references"))
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


def find_reference(named: Path) -> Path:
    """A reference file: the one of a path, else the shipped one of that name.

    Raises:
        InputError: There is none.
    """
    if named.is_file():
        return named
    shipped = shipped_references()
    if str(named) in shipped:
        return shipped[str(named)]
    raise InputError(
        f"There is no reference file {named}; give a file, or one of those shipped: {', '.join(shipped)}."
    )
