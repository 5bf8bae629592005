"""Task of one slide, and the identity of its feature file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.features.paths import claims_folder, feature_path, thumbnail_path, tissue_path
from wsi_ncmi.features.schema import NONE, Identity, canonical_json, identity_of
from wsi_ncmi.slides import Mpp, SlideRecord
from wsi_ncmi.tissue.config import ArtifactConfig

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainTarget


def artifacts_rule(config: ArtifactConfig) -> str:
    """The artefact settings as the identity holds them.

    Thresholds, and how the detectors score, count only where tiles are dropped: there another version of them
    keeps other tiles.
    """
    if config.rule == "keep":
        return config.rule
    return canonical_json(asdict(config))


@dataclass(frozen=True)
class AnnotationFile:
    """Annotations of a slide, or that no file was found for it.

    Attributes:
        path: The file; None where the folder of annotations has none for the slide.
        sha256: Hash of its areas; ``none`` without a file.
    """

    path: Path | None = None
    sha256: str = NONE


@dataclass(frozen=True)
class SlideTask:
    """One slide of an extraction job; picklable.

    Attributes:
        record: The slide's row of the inventory.
        config: Configuration of the job; its ``grid`` is the one of this task's set of features.
        annotations: Annotations of the slide; None where the job has none.
        stain: Target of the stain normalisation; None without.
        features_set: Name of the set of features; empty for the main one.
        n_sets: Sets of features that the job makes of the slide.
    """

    record: SlideRecord
    config: ExtractConfig
    annotations: AnnotationFile | None = None
    stain: StainTarget | None = None
    features_set: str = ""
    n_sets: int = 1

    @property
    def out(self) -> Path:
        """Output folder of the job."""
        return self.config.out

    @property
    def root(self) -> Path:
        """Slide folder that ``record.path`` is relative to, or the one slide.

        Raises:
            ValueError: The configuration names none.
        """
        if self.config.slides is None:
            raise ValueError("the configuration names no slides")
        return self.config.slides

    @property
    def slide_path(self) -> Path:
        """The slide's file."""
        return self.root if self.root.is_file() else self.root / self.record.path

    @property
    def files(self) -> Path | tuple[Path, ...]:
        """What is opened: the slide's file, or all files of a DICOM slide."""
        return self.record.files(self.root)

    @property
    def mpp(self) -> Mpp:
        """Resolution as the inventory resolved it.

        Raises:
            ValueError: The record has none; such a record carries a ``problem`` and is never worked on.
        """
        if self.record.mpp_x is None or self.record.mpp_y is None:
            raise ValueError(f"the record of {self.record.slide_id} has no resolution")
        return Mpp(self.record.mpp_x, self.record.mpp_y, self.record.mpp_source)

    def identity(self, encoder: EncoderInfo) -> Identity:
        """The identity of the file that this task writes; nothing of the slide is opened.

        Raises:
            ValueError: The record has no resolution.
        """
        return identity_of(
            self.record,
            self.config.tissue,
            self.config.grid,
            encoder,
            artifacts_rule=artifacts_rule(self.config.artifacts),
            annotations=NONE if self.annotations is None else self.annotations.sha256,
            stain=NONE if self.stain is None else self.stain.identity,
        )

    def feature_path(self, encoder_name: str) -> Path:
        """Path of the feature file.

        Raises:
            InputError: The slide id would lead out of the folder.
        """
        return feature_path(self.out, encoder_name, self.record.slide_id, self.features_set)

    def claim_path(self, encoder_name: str) -> Path:
        """The claim that a process holds while it works on this task."""
        return claims_folder(self.out, encoder_name, self.features_set) / self.record.slide_id

    @property
    def thumbnail_path(self) -> Path:
        """Path of the thumbnail.

        Raises:
            InputError: The slide id would lead out of the folder.
        """
        return thumbnail_path(self.out, self.record.slide_id, self.features_set)

    @property
    def tissue_path(self) -> Path | None:
        """Path of the tissue outline; None for an additional set, whose tissue is that of the main one.

        Raises:
            InputError: The slide id would lead out of the folder.
        """
        return None if self.features_set else tissue_path(self.out, self.record.slide_id)

    def products(self, encoder_name: str) -> tuple[Path, ...]:
        """Every file that this task writes, the feature file first.

        Raises:
            InputError: The slide id would lead out of the folder.
        """
        outline = () if self.tissue_path is None else (self.tissue_path,)
        return (self.feature_path(encoder_name), *outline, self.thumbnail_path)
