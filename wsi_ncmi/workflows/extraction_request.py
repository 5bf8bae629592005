"""What the extraction job is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.features.stain.config import StainConfig
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig
from wsi_ncmi.workflows.config import JobConfig

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainTarget

__all__ = ["ExtractionRequest"]


@dataclass(frozen=True)
class ExtractionRequest:
    """What to extract, and how.

    Attributes:
        slides: Folder of slides, or one slide.
        out: Output folder.
        encoder: Encoder options.
        tissue: Tissue options.
        grid: Grid options.
        extraction: Processes and time limit.
        mpp_table: CSV of resolutions by slide.
        default_mpp: Resolution where nothing else gives it.
        only: CSV with a column ``slide_id``: only these slides.
        slide_ids: Only these slides, by the ids of the inventory; None = all.
        shard: ``(i, n)``: every n-th slide from the i-th (1-based), for job arrays.
        overwrite: Replace feature files of another identity.
        weights_dir: Folder of encoder weights.
        artifacts: What happens to tiles with artefacts.
        annotations: Folder of annotations, a file a slide.
        stain: Stain normalisation.
        stain_target: What colours are brought to where that is known already, in place of ``stain``.
        further_mpp: Further resolutions in µm per pixel, each a set of features of its own.
        inventory: Table that ``wsi-ncmi inventory`` wrote of ``slides``; None looks at them anew.
    """

    slides: Path
    out: Path
    encoder: EncoderConfig
    tissue: TissueConfig
    grid: GridConfig
    extraction: ExecutionConfig
    mpp_table: Path | None = None
    default_mpp: float | None = None
    only: Path | None = None
    slide_ids: frozenset[str] | None = None
    shard: tuple[int, int] | None = None
    overwrite: bool = False
    weights_dir: Path | None = None
    artifacts: ArtifactConfig = field(default_factory=ArtifactConfig)
    annotations: Path | None = None
    stain: StainConfig = field(default_factory=StainConfig)
    stain_target: StainTarget | None = None
    further_mpp: tuple[float, ...] = ()
    inventory: Path | None = None

    @classmethod
    def of_config(
        cls,
        config: JobConfig,
        slides: Path,
        out: Path,
        *,
        only: Path | None = None,
        shard: tuple[int, int] | None = None,
        overwrite: bool = False,
        inventory: Path | None = None,
    ) -> ExtractionRequest:
        """The extraction that a job's configuration asks for, of these slides and into this folder."""
        return cls(
            slides=slides,
            out=out,
            encoder=config.encoder,
            tissue=config.tissue,
            grid=config.grid,
            extraction=config.extraction,
            mpp_table=config.mpp_table,
            default_mpp=config.default_mpp,
            only=only,
            shard=shard,
            overwrite=overwrite,
            weights_dir=config.weights_dir,
            artifacts=config.artifacts,
            annotations=config.annotations,
            stain=config.stain,
            further_mpp=config.further_mpp,
            inventory=inventory,
        )
