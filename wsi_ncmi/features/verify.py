"""Verification of feature files, and quarantine of those that are damaged."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ncmi.core.errors import InputError, plain_reason
from wsi_ncmi.core.files import TEMPORARY_SUFFIX
from wsi_ncmi.features.checksum_trailer import trailer_error
from wsi_ncmi.features.reader import FeatureFile, open_features_file
from wsi_ncmi.features.storage import translate_os_errors
from wsi_ncmi.features.writer import content_sha256

QUARANTINE = "quarantine"
"""Folder beside the features that takes files found bad; nothing reads it."""


@dataclass(frozen=True)
class VerificationResult:
    """Result of verifying one file.

    Attributes:
        path: The file, where it was found.
        ok: Whether it is whole.
        problem: One sentence when it is not, else empty.
        n_tiles: Its rows; 0 when unknown.
        repaired: Action of ``--repair``, else empty.
    """

    path: Path
    ok: bool
    problem: str = ""
    n_tiles: int = 0
    repaired: str = ""


def verify_file(path: Path) -> VerificationResult:
    """Checks one feature file: structure, attributes, lengths, values, and the checksum over its content.

    Args:
        path: The file.

    Returns:
        The result; nothing about the file raises.
    """
    try:
        if broken := trailer_error(path):
            return VerificationResult(path, False, f"{path.name}: {broken}.")
        file = open_features_file(path)
        problem = _problem(file)
    except InputError as error:
        return VerificationResult(path, False, str(error))
    except Exception as error:
        # Damage at any byte can surface as any error of the layers below; the result is the same.
        reason = f"it lacks {error}" if isinstance(error, KeyError) else plain_reason(error, path)
        return VerificationResult(path, False, f"{path.name} can't be read ({reason}).")
    return VerificationResult(path, not problem, f"{path.name}: {problem}." if problem else "", file.n_tiles)


def _problem(file: FeatureFile) -> str:
    # The trailer proves that these are the bytes that were written; what follows, that they were right.
    identity = file.identity
    if file.path.name != f"{file.slide_id}.h5":
        return f"it holds slide {file.slide_id!r}"
    if file.features.dtype != np.dtype("<f2") or file.coords.dtype != np.dtype("<i8"):
        return f"its types are {file.features.dtype} and {file.coords.dtype} instead of float16 and int64"
    if content_sha256(file.features, file.coords) != file.attrs.get("sha256"):
        return "its content does not match its checksum"
    if not np.isfinite(file.features).all():
        return "it holds values that are not finite"
    fraction = np.asarray(file.tissue_fraction, np.float32)
    if fraction.shape != (file.n_tiles,) or not ((fraction >= 0) & (fraction <= 1)).all():
        return "its tissue shares are no numbers from 0 to 1, one a tile"
    scores = np.asarray(file.artifacts, np.float32)
    if scores.shape != (file.n_tiles, len(file.artifact_kinds)) or not ((scores >= 0) & (scores <= 1)).all():
        return "its artefact scores are no numbers from 0 to 1, one a tile and kind"
    if misplaced := _misplaced(file):
        return misplaced
    if file.coords_attrs.get("patch_size") != identity.tile_px:
        return f"its coordinates are of tiles of {file.coords_attrs.get('patch_size')} px"
    return ""


def _misplaced(file: FeatureFile) -> str:
    """Coordinates must be tiles of one grid: in raster order, none twice, all inside the slide."""
    x, y = file.coords[:, 0], file.coords[:, 1]
    width, height = (float(file.attrs[f"tile_size_level0_{axis}"]) for axis in "xy")
    # Corners are rounded to whole pixels, so a tile at the edge may seem to end half a pixel outside.
    right, bottom = (int(file.coords_attrs[f"level0_{side}"]) + 0.5 for side in ("width", "height"))
    if len(x) and (min(x.min(), y.min()) < 0 or (x + width).max() > right or (y + height).max() > bottom):
        return "it holds tiles outside the slide"
    later_row, same_row = np.diff(y) > 0, np.diff(y) == 0
    if not (later_row | (same_row & (np.diff(x) > 0))).all():
        return "its tiles are not in raster order, or one is there twice"
    return ""


def verify_folder(folder: Path, repair: bool = False) -> tuple[VerificationResult, ...]:
    """Checks every feature file of a job or of one encoder.

    Args:
        folder: ``OUT`` (all encoders), ``OUT/features`` or ``OUT/features/<encoder>``.
        repair: Move bad files into ``quarantine/`` beside them, so that the next ``extract`` makes them anew,
            and remove temporary files of killed writers (give it while no job is running on the folder).

    Returns:
        One result a file, sorted by path; a temporary file counts as a bad one.

    Raises:
        InputError: There is no such folder or nothing to verify in it.
        JobStoppedError: A bad file can't be moved.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the --out folder of 'wsi-ncmi extract'.")
    results = [_treated(result, repair) for result in _results(folder)]
    if not results:
        raise InputError(f"There are no feature files (*.h5) in {folder}; run 'wsi-ncmi extract' first.")
    return tuple(results)


def _results(folder: Path) -> Iterator[VerificationResult]:
    for place in _feature_folders(folder):
        for path in sorted(place.iterdir()):
            if path.suffix == ".h5" and path.is_file():
                yield verify_file(path)
            elif path.name.endswith(TEMPORARY_SUFFIX):
                yield VerificationResult(
                    path, False, "It is a temporary file of a writer that was killed or still runs."
                )


def _feature_folders(folder: Path) -> list[Path]:
    root = folder / "features" if (folder / "features").is_dir() else folder
    inside = [path for path in sorted(root.iterdir()) if path.is_dir() and not _is_apart(path)]
    return [root, *inside]


def _is_apart(folder: Path) -> bool:
    return folder.name == QUARANTINE or folder.name.startswith(".")


def _treated(result: VerificationResult, repair: bool) -> VerificationResult:
    if result.ok or not repair:
        return result
    path = result.path
    with translate_os_errors(path):
        if path.name.endswith(TEMPORARY_SUFFIX):
            path.unlink(missing_ok=True)
            return VerificationResult(path, False, result.problem, repaired="removed")
        quarantine = path.parent / QUARANTINE
        quarantine.mkdir(exist_ok=True)
        target, number = quarantine / path.name, 1
        while target.exists():  # earlier damage of the same slide is evidence too
            number += 1
            target = quarantine / f"{path.stem}.{number}{path.suffix}"
        os.replace(path, target)
    return VerificationResult(
        path, False, result.problem, result.n_tiles, f"moved to {QUARANTINE}/{target.name}"
    )
