"""Evidence for the leak audit: content, place and thumbnail of each slide."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsi_ncmi import slides
from wsi_ncmi.cohorts.bag_sources import open_bag_source
from wsi_ncmi.cohorts.bags import BagSource, FeatureFolder
from wsi_ncmi.cohorts.near_duplicates import ThumbnailSignature, thumbnail_signature
from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.features.thumbnails import undrawn_thumbnail

_PICTURES = (".jpg", ".jpeg", ".png")
_THUMBNAIL_PX = 512


@dataclass(frozen=True)
class Evidence:
    """Each by slide id (without slide extension where that is unambiguous).

    Attributes:
        fingerprints: Hash of the slide file's content.
        features: Hash of the slide's features.
        paths: Path of the slide below its root, with ``/``.
        signatures: Slide id → signature of its thumbnail.
        notes: What could not be looked at, in sentences.
    """

    fingerprints: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    signatures: Mapping[str, ThumbnailSignature] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def slide_ids(self) -> frozenset[str]:
        """All slides of which anything is known."""
        return frozenset((*self.fingerprints, *self.features, *self.paths, *self.signatures))

    def spelled_as(self, slide_ids: Collection[str]) -> "Evidence":
        """The same with ids spelled as in ``slide_ids``, where they mean one of them."""
        spelled = slides.SlideIndex(slide_ids).spelled
        return Evidence(
            {spelled(s): found for s, found in self.fingerprints.items()},
            {spelled(s): found for s, found in self.features.items()},
            {spelled(s): found for s, found in self.paths.items()},
            {spelled(s): found for s, found in self.signatures.items()},
            self.notes,
        )


def merge_evidence(*parts: Evidence) -> Evidence:
    """Everything that the parts know; of what two know, the first is taken."""
    merged = Evidence()
    for part in parts:
        merged = Evidence(
            {**part.fingerprints, **merged.fingerprints},
            {**part.features, **merged.features},
            {**part.paths, **merged.paths},
            {**part.signatures, **merged.signatures},
            (*merged.notes, *part.notes),
        )
    return merged


def evidence_of_slides(path: Path, progress: ProgressReporter | None = None) -> Evidence:
    """What an inventory, or the slides themselves, tell.

    Args:
        path: A ``slides.csv`` by ``wsi-ncmi inventory`` (nothing is opened), or a folder of slides: then the
            inventory is taken and every slide's thumbnail read from its pyramid.
        progress: Where to report.

    Raises:
        InputError: Neither.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        return _of_records(slides.read_slides_csv(path), {}, ())
    progress = progress or NullProgress()
    records = slides.take_inventory(path, progress=progress)
    signatures: dict[str, ThumbnailSignature] = {}
    unseen: list[str] = []
    with progress.task("thumbnails", len(records), "slides") as task:
        for record in records:
            if not record.problem:
                try:
                    with slides.open_slide(record.files(path)) as slide:
                        signature = thumbnail_signature(slides.thumbnail(slide, _THUMBNAIL_PX))
                except WsiNcmiError:
                    signature = None
                if signature is None:
                    unseen.append(record.slide_id)
                else:
                    signatures[record.slide_id] = signature
            task.advance(1, record.slide_id)
    return _of_records(records, signatures, _unseen_note(unseen))


def evidence_of_features(path: Path) -> Evidence:
    """What features tell: their own hash, and the fingerprint of the slide they were made from.

    Of our own folders nothing but the files' headers is read; the inventory and the thumbnails that lie in
    the same output folder are taken along.

    Raises:
        InputError: No features there.
    """
    return evidence_of_source(open_bag_source(path))


def evidence_of_source(
    source: BagSource, *, slide_ids: Collection[str] | None = None, most_bytes: int | None = None
) -> Evidence:
    """As ``evidence_of_features``, of features that are open.

    Args:
        source: The features.
        slide_ids: The slides that are asked about; None = all.
        most_bytes: Features of other tools and packed files, which carry no hash, are read to the end; where
            they are larger than this they are not, and a note says so. None = read them whatever their size.
    """
    wanted = frozenset(source.slide_ids if slide_ids is None else slide_ids)
    if isinstance(source, FeatureFolder):
        found = Evidence(
            fingerprints={s: h for s, h in source.fingerprints.items() if s in wanted},
            features={s: h for s, h in source.content_hashes.items() if s in wanted},
        )
        features_set = source.path.name.partition("@")[2]
        out = source.path.parent.parent
        beside = [found]
        if (out / "slides.csv").is_file():
            beside.append(evidence_of_slides(out / "slides.csv"))
        thumbnails = out / (f"thumbnails@{features_set}" if features_set else "thumbnails")
        if any(thumbnails.glob("*.jpg")):
            beside.append(evidence_of_thumbnails(thumbnails, slide_ids=wanted, drawn=True))
        return merge_evidence(*beside)
    size = 2 * source.width * int(source.lengths.sum())  # float16
    if most_bytes is not None and size > most_bytes:
        note = f"Features were not compared: reading {size / 2**30:.1f} GiB takes long; run 'wsi-ncmi audit'."
        return Evidence(notes=(note,))
    hashes = {}
    for slide_id in source.slide_ids:
        bag = np.ascontiguousarray(source.load(slide_id)) if slide_id in wanted else np.empty(0)
        if len(bag):
            hashes[slide_id] = hashlib.sha256(bag.tobytes()).hexdigest()
    return Evidence(features=hashes)


def evidence_of_thumbnails(
    path: Path, *, slide_ids: Collection[str] | None = None, drawn: bool = False
) -> Evidence:
    """The signatures of a folder of pictures, one a slide, named by it.

    Args:
        path: The folder.
        slide_ids: The slides that are asked about; None = all.
        drawn: The pictures have outlines and tiles over them, as the extraction makes them: only what they
            carry of the slide without them is compared, since equal grids would look alike.

    Raises:
        InputError: No pictures there.
    """
    from PIL import Image, UnidentifiedImageError

    files = sorted(f for f in path.iterdir() if f.suffix.lower() in _PICTURES) if path.is_dir() else []
    if not files:
        raise InputError(f"There are no thumbnails (.jpg, .png) in {path}.")
    signatures: dict[str, ThumbnailSignature] = {}
    unseen: list[str] = []
    for file in files:
        if slide_ids is not None and file.stem not in slide_ids:
            continue
        try:
            with Image.open(file) as picture:
                plain = undrawn_thumbnail(picture)
                if plain is None and not drawn:
                    picture.draft("RGB", (_THUMBNAIL_PX, _THUMBNAIL_PX))
                    plain = picture.convert("RGB")
                signature = None if plain is None else thumbnail_signature(np.asarray(plain))
        except (OSError, UnidentifiedImageError):
            signature = None
        if signature is None:
            unseen.append(file.stem)
        else:
            signatures[file.stem] = signature
    return Evidence(signatures=signatures, notes=_unseen_note(unseen))


def _of_records(
    records: tuple[slides.SlideRecord, ...],
    signatures: Mapping[str, ThumbnailSignature],
    notes: tuple[str, ...],
) -> Evidence:
    return Evidence(
        fingerprints={record.slide_id: record.fingerprint for record in records if record.fingerprint},
        paths={record.slide_id: record.path for record in records},
        signatures=signatures,
        notes=notes,
    )


def _unseen_note(unseen: list[str]) -> tuple[str, ...]:
    if not unseen:
        return ()
    more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
    return (f"The thumbnail of {unseen[0]}{more} shows nothing or can't be read; its look was not compared.",)
