"""The work on one slide, and the identity its feature file will have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.encoders import Encoder
from wsi_ncmi.features.schema import FeatureIdentity, canonical_json
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

    def identity(self, encoder: Encoder) -> FeatureIdentity:
        """The identity of the file that this task writes; nothing of the slide is opened."""
        mpp = self.mpp
        return FeatureIdentity(
            slide_fingerprint=self.record.fingerprint,
            mpp_level0=mpp.x,
            mpp_level0_y=mpp.y,
            mpp_target=self.grid.mpp,
            tile_px=self.grid.tile_px,
            overlap_px=self.grid.overlap_px,
            tissue_method=self.tissue.method,
            tissue_parameters=canonical_json(self.tissue),
            min_tissue=self.grid.min_tissue,
            encoder=encoder.name,
            encoder_weights_sha256=encoder.weights_sha256,
            transform=encoder.transform,
            precision=encoder.precision,
            backend=encoder.backend,
        )
