"""Bags joined over encoders or over the slides of a patient, and the origin of their features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.bags import BagSource
from wsi_ncmi.cohorts.cohort import Cohort, CohortRow
from wsi_ncmi.cohorts.folds import PARTS, Fold, Splits
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json

# Where these differ, the tiles show other tissue: their rows don't belong together.
_TILING = ("mpp_target", "tile_px", "overlap_px")


class JoinedBags:
    """Bag source whose tiles have the embeddings of several sources one after the other; see ``BagSource``.

    The slides are those that all sources have. A slide's tiles must be the same in all of them: the same
    number, and the same places in the same order wherever two sources know places (checked when a slide is
    first loaded).

    Args:
        sources: At least one, in the order of their columns.

    Raises:
        InputError: No slide in common, sources of different tiles, or a slide of different tile counts.
    """

    def __init__(self, sources: Sequence[BagSource]) -> None:
        self.parts = tuple(sources)
        first = self.parts[0]
        self.path: Path = first.path
        self.width = sum(part.width for part in self.parts)
        self.encoder = " + ".join(part.encoder or "?" for part in self.parts)
        self.level = first.level
        self.fingerprints: dict[str, str] = dict(getattr(first, "fingerprints", {}))
        shared = set(first.slide_ids).intersection(*(part.slide_ids for part in self.parts[1:]))
        self.slide_ids = tuple(slide_id for slide_id in first.slide_ids if slide_id in shared)
        if not self.slide_ids:
            raise InputError(
                f"The features {_names(self.parts)} have no slide in common; are they of one cohort?"
            )
        for part in self.parts[1:]:
            if part.level != self.level:
                raise InputError(
                    f"{first.path} holds vectors of {self.level}s and {part.path} of {part.level}s; only "
                    "those of one level can be joined."
                )
            _check_tiling(first, part)
        self.lengths = self._checked_lengths()
        self._compared: set[str] = set()

    def __reduce__(self) -> tuple[type[JoinedBags], tuple[Sequence[BagSource]]]:
        return JoinedBags, (self.parts,)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, ΣD)."""
        if slide_id not in self._compared:
            self.coordinates(slide_id)
            self._compared.add(slide_id)
        return np.concatenate([part.load(slide_id) for part in self.parts], axis=1)

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Places of a slide's tiles (N, 2), or None where no source knows them.

        Raises:
            InputError: Two sources have different places.
        """
        known = [(part, part.coordinates(slide_id)) for part in self.parts]
        placed = [(part, places) for part, places in known if places is not None]
        for part, places in placed[1:]:
            if not np.array_equal(places, placed[0][1]):
                raise InputError(
                    f"The tiles of slide {slide_id!r} lie elsewhere in {part.path} than in "
                    f"{placed[0][0].path}; extract with all encoders from the same tissue masks and grid."
                )
        return placed[0][1] if placed else None

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels of the first source that carries any, or None."""
        for part in self.parts:
            if (cohort := part.embedded_cohort(group)) is not None:
                return cohort
        return None

    def _checked_lengths(self) -> NDArray[np.int64]:
        found: list[list[int]] = []
        for part in self.parts:
            tiles = dict(zip(part.slide_ids, part.lengths.tolist(), strict=True))
            found.append([tiles[slide_id] for slide_id in self.slide_ids])
        for part, counts in zip(self.parts[1:], found[1:], strict=True):
            for slide_id, wanted, got in zip(self.slide_ids, found[0], counts, strict=True):
                if wanted != got:
                    raise InputError(
                        f"Slide {slide_id!r} has {wanted} tiles in {self.parts[0].path} but {got} in "
                        f"{part.path}; extract with all encoders from the same tissue masks and grid."
                    )
        return np.array(found[0], dtype=np.int64)


def _check_tiling(first: BagSource, other: BagSource) -> None:
    a: dict[str, Any] = getattr(first, "identity", {})
    b: dict[str, Any] = getattr(other, "identity", {})
    for key in _TILING:
        if a.get(key) is not None and b.get(key) is not None and a[key] != b[key]:
            raise InputError(
                f"{key} is {a[key]} in {first.path} but {b[key]} in {other.path}: encoders can be joined "
                "only on the same tiles."
            )


def _names(parts: Sequence[BagSource]) -> str:
    return " and ".join(str(part.path) for part in parts)


class PatientBags:
    """Bag source whose bags are patients; see ``BagSource``: a "slide" of it is a patient.

    Args:
        source: The slides' bags.
        slides: Patient → slides, each with features, in the order in which their tiles follow each other.
    """

    def __init__(self, source: BagSource, slides: Mapping[str, Sequence[str]]) -> None:
        self.slides_source = source
        self.slides = {patient: tuple(names) for patient, names in slides.items()}
        self.path: Path = source.path
        self.level = source.level
        self.width = source.width
        self.encoder = source.encoder
        self.slide_ids = tuple(self.slides)
        tiles = dict(zip(source.slide_ids, source.lengths.tolist(), strict=True))
        self.lengths: NDArray[np.int64] = np.array(
            [sum(tiles[name] for name in names) for names in self.slides.values()], dtype=np.int64
        )

    def __reduce__(self) -> tuple[type[PatientBags], tuple[BagSource, Mapping[str, Sequence[str]]]]:
        return PatientBags, (self.slides_source, self.slides)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of all tiles of a patient, float16 (N, D)."""
        if slide_id not in self.slides:
            raise InputError(f"{self.path} has no features of the patient {slide_id!r}.")
        bags = [self.slides_source.load(name) for name in self.slides[slide_id]]
        return bags[0] if len(bags) == 1 else np.concatenate(bags)

    def coordinates(self, slide_id: str) -> None:
        """None: the tiles of different slides have no common place."""

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """None: see :func:`patient_cohort`."""
        return None


def patient_cohort(cohort: Cohort) -> tuple[Cohort, dict[str, tuple[str, ...]]]:
    """The cohort with one row a patient.

    Args:
        cohort: Slides with known patients.

    Returns:
        A cohort whose slide ids are the patients, and patient → slides, in the order of the rows. A patient
        whose slides come from several centres has none.

    Raises:
        InputError: Patients aren't known, or a patient's slides have different labels.
    """
    if cohort.case_id_assumed:
        raise InputError("Bags of patients need patient ids; add a 'case_id' column to the labels.")
    rows: dict[str, list[CohortRow]] = {}
    for row in cohort.rows:
        rows.setdefault(row.case_id, []).append(row)
    merged = []
    for patient, of_patient in rows.items():
        labels = sorted({row.label for row in of_patient})
        if len(labels) > 1:
            raise InputError(
                f"The slides of the patient {patient!r} have the labels {' and '.join(map(repr, labels))}; "
                "give all of them the label of the patient, or train on slides (bag: slide)."
            )
        centres = {row.centre for row in of_patient}
        merged.append(CohortRow(patient, patient, labels[0], centres.pop() if len(centres) == 1 else ""))
    official: dict[str, str] = {}
    for patient, of_patient in rows.items():
        parts = {
            cohort.official_split[row.slide_id] for row in of_patient if row.slide_id in cohort.official_split
        }
        if len(parts) > 1:
            raise InputError(
                f"The official split has slides of the patient {patient!r} in {' and '.join(sorted(parts))}."
            )
        official.update((patient, part) for part in parts)
    slides = {patient: tuple(row.slide_id for row in of_patient) for patient, of_patient in rows.items()}
    # Copies of images are a matter of slides: see slide_splits.
    return replace(cohort, rows=tuple(merged), official_split=official, fingerprints={}), slides


def patient_splits(splits: Splits, cohort: Cohort) -> Splits:
    """Splits of slides as splits of patients.

    Args:
        splits: Of slides.
        cohort: The slides' cohort.

    Raises:
        InputError: A patient's slides are in different parts of a fold.
    """
    folds = []
    for number, fold in enumerate(splits.folds):
        placed: dict[str, str] = {}
        for name in PARTS:
            for slide_id in fold.part(name):
                patient = cohort.by_slide[slide_id].case_id
                if placed.setdefault(patient, name) != name:
                    raise InputError(
                        f"Fold {number} has slides of the patient {patient!r} in {placed[patient]} and "
                        f"{name}; make the splits again."
                    )
        parts = (tuple(sorted(p for p, where in placed.items() if where == name)) for name in PARTS)
        folds.append(Fold(*parts))
    return replace(splits, folds=tuple(folds))


def slide_splits(splits: Splits, slides: Mapping[str, Sequence[str]]) -> Splits:
    """Splits of patients as splits of their slides, for the audit of copied images.

    Args:
        splits: Of patients.
        slides: Patient → slides.
    """
    folds = []
    for fold in splits.folds:
        parts = (tuple(sorted(s for p in fold.part(name) for s in slides[p])) for name in PARTS)
        folds.append(Fold(*parts))
    return replace(splits, folds=tuple(folds))


# Settings of a whole extraction besides those that all files of a folder are checked for.
_SETTINGS = ("tissue_method", "tissue_parameters", "min_tissue", "artifacts_rule", "decoding")


def feature_origin(source: BagSource) -> dict[str, Any]:
    """The origin of the features of a source; empty where it does not say.

    Args:
        source: The bags that models are trained on.

    Returns:
        JSON-ready values under the names of the feature files' attributes, and ``stain_target``: the numbers
        of the stain that tiles were given (the reference image itself need not be kept). ``joined`` lists the
        origins of joined encoders; ``bag`` is ``patient`` where bags are those of patients; ``level`` is
        ``slide`` or ``patient`` where a row is a vector of one.
    """
    from wsi_ncmi.features import open_features_file

    if isinstance(source, PatientBags):
        return {**feature_origin(source.slides_source), "bag": "patient"}
    if isinstance(source, JoinedBags):
        return {"encoder": source.encoder, "joined": [feature_origin(part) for part in source.parts]}
    origin = dict(getattr(source, "identity", {}))
    if not origin:
        return {} if source.level == "tile" else {"name": source.encoder, "level": source.level}
    first = open_features_file(source.path / f"{source.slide_ids[0]}.h5")
    origin |= {key: first.attrs[key] for key in _SETTINGS if key in first.attrs}
    if origin.get("stain", "none") != "none":
        for slide_id in source.slide_ids:  # a slide without tissue has none of its own
            path = source.path / f"{slide_id}.h5"
            found = open_features_file(path).attrs.get("stain_found")
            if found:
                try:
                    target = parse_json(found)["target"]
                except (KeyError, TypeError, ValueError) as error:
                    raise InputError(
                        f"The stain of {path} can't be read ({error}); extract the slide again."
                    ) from error
                origin["stain_target"] = json.dumps(target, sort_keys=True)
                break
    return origin
