"""The work on one slide, and the identity its feature file will have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.features.paths import claims_folder, feature_path, thumbnail_path, tissue_path
from wsi_ncmi.features.schema import EncoderFacts, Identity, identity_of
from wsi_ncmi.slides import Mpp, SlideRecord
from wsi_ncmi.tiling.options import GridOptions
from wsi_ncmi.tissue.options import TissueOptions

__all__ = ["SlideTask"]


@dataclass(frozen=True)
class SlideTask:
    """One slide of an extraction job; picklable.

    Attributes:
        record: The slide's row of the inventory.
        root: Slide folder (or the one slide file) that ``record.path`` is relative to.
        out: Output folder of the job.
        tissue: Tissue segmentation.
        grid: Tile grid.
        overwrite: Replace a file of another identity.
    """

    record: SlideRecord
    root: Path
    out: Path
    tissue: TissueOptions
    grid: GridOptions
    overwrite: bool = False

    @property
    def slide_path(self) -> Path:
        """The slide's file."""
        return self.root if self.root.is_file() else self.root / self.record.path

    @property
    def mpp(self) -> Mpp:
        """Resolution as the inventory resolved it.

        Raises:
            ValueError: The record has none; such a record carries a ``problem`` and is never worked on.
        """
        if self.record.mpp_x is None or self.record.mpp_y is None:
            raise ValueError(f"the record of {self.record.slide_id} has no resolution")
        return Mpp(self.record.mpp_x, self.record.mpp_y, self.record.mpp_source)

    def identity(self, encoder: EncoderFacts) -> Identity:
        """The identity of the file that this task writes; nothing of the slide is opened.

        Raises:
            ValueError: The record has no resolution.
        """
        return identity_of(self.record, self.tissue, self.grid, encoder)

    def feature_path(self, encoder_name: str) -> Path:
        """Where the feature file of this task lies.

        Raises:
            InputError: The slide id would lead out of the folder.
        """
        return feature_path(self.out, encoder_name, self.record.slide_id)

    def claim_path(self, encoder_name: str) -> Path:
        """The claim that a process holds while it works on this task."""
        return claims_folder(self.out, encoder_name) / self.record.slide_id

    def products(self, encoder_name: str) -> tuple[Path, ...]:
        """Every file that this task writes, the feature file first.

        Raises:
            InputError: The slide id would lead out of the folder.
        """
        slide_id = self.record.slide_id
        return (
            self.feature_path(encoder_name),
            tissue_path(self.out, slide_id),
            thumbnail_path(self.out, slide_id),
        )
