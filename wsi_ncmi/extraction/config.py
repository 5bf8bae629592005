"""Configuration of the extraction: slides, tiles, encoder, and how the work is shared out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from wsi_ncmi.core.config import Short, configclass, contradiction
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.extraction.encoder_grid import check_encoder_grid
from wsi_ncmi.features.stain.config import StainConfig
from wsi_ncmi.slides.pseudonyms import read_key
from wsi_ncmi.tiling.config import GridConfig
from wsi_ncmi.tissue.config import ArtifactConfig, TissueConfig

_Mpp = Annotated[float, Field(gt=0.02, le=100)]


@configclass
class ExecutionConfig:
    """How slides are worked through.

    Attributes:
        workers: Processes; None takes one a GPU, or what suits the encoder and the cores that this process
            may use (affinity and cgroup quota).
        timeout_per_slide: Seconds after which a slide is given up; None waits for ever.
        buffer_mib: Decoded pixels held between reading and encoding, in MiB, all processes together; less
            where memory is limited.
        engine: ``local`` processes, or the nodes of a ``ray`` cluster, which all see the same folders.
        ray_address: Head of the Ray cluster as ``HOST:PORT``; None takes ``RAY_ADDRESS``, else the cluster
            that runs on this machine.
        stage: Folder on a local disk to which slides are copied ahead of the readers, and removed again; for
            slides on slow or shared storage.
        stage_gib: GiB of slides in it at a time on each machine; None takes half of what is free there.
        check_space: Refuse a job whose features will most likely not fit on the disk.
    """

    workers: Annotated[int, Field(ge=1)] | None = None
    timeout_per_slide: Annotated[float, Field(gt=0)] | None = None
    buffer_mib: Annotated[int, Field(ge=64)] = 512
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    stage: Path | None = None
    stage_gib: Annotated[float, Field(gt=0)] | None = None
    check_space: bool = True

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        if self.engine == "local" and self.ray_address is not None:
            raise contradiction(
                "this machine's own processes have no cluster; take engine ray, or leave the address out",
                "ray_address", "engine",
            )  # fmt: skip
        if self.stage is None and self.stage_gib is not None:
            raise contradiction("nothing is staged without a folder", "stage_gib", "stage")
        return self


def _shard(value: Any) -> Any:
    """``3/8`` as (3, 8)."""
    parts = value.split("/") if isinstance(value, str) else value
    try:
        number, count = map(int, parts)
    except (TypeError, ValueError):
        number, count = 0, 0
    if value is not None and not 1 <= number <= count:
        raise ValueError(f"a shard is I/N with 1 ≤ I ≤ N, such as 3/8, got {value!r}")
    return None if value is None else (number, count)


@configclass
class ExtractConfig:
    """What to extract, and how.

    Attributes:
        slides: Folder of slides, or one slide.
        out: Output folder: ``features/``, ``tissue/``, ``thumbnails/``, ``ledger.csv``, ``run.json``.
        mpp_table: CSV with ``slide_id,mpp`` for slides whose own resolution is missing or wrong.
        default_mpp: Resolution in µm per pixel of slides for which nothing else gives it.
        weights_dir: Folder of encoder weights; the environment variable ``WSI_NCMI_WEIGHTS`` does the same.
        tissue: Tissue segmentation.
        artifacts: What happens to tiles with pen ink, folds, borders or blur.
        annotations: Folder of QuPath's GeoJSON or ASAP's XML, a file a slide, that change the tissue.
        grid: Tile grid.
        further_mpp: Additional resolutions in µm per pixel, each a set of features of its own; training and
            prediction use the one of ``grid``.
        stain: Stain normalisation of the tiles.
        encoder: Tile encoder.
        extraction: Processes and time limits.
        only: CSV with a column ``slide_id``: only these slides.
        shard: ``I/N``: every N-th slide from the I-th, for job arrays.
        inventory: Table that ``wsi-ncmi inventory`` wrote of the slides; None looks at them anew.
        known_failures: CSV with ``slide_id`` and perhaps ``reason``, or a ledger; slides that fail as listed
            there don't count for the exit code.
        overwrite: Replace features of another identity.
        dicom_id: What DICOM slides are called by: the ``container`` identifier (where several slides have it,
            the series), the ``series``, or the ``file``. An output folder keeps the ids that it has.
        dicom_patients: ``pseudonym`` gives a keyed hash of the DICOM patient id as ``case_id`` in
            ``slides.csv``; ``none`` reads no patient id.
        dicom_key: File with the key of the pseudonyms, which the site keeps.
    """

    slides: Path | None = None
    out: Path = Path("out")
    mpp_table: Path | None = None
    default_mpp: Annotated[float, Field(gt=0.02, lt=100)] | None = None
    weights_dir: Path | None = None
    tissue: Annotated[TissueConfig, Short("method")] = Field(default_factory=TissueConfig)
    artifacts: Annotated[ArtifactConfig, Short("rule")] = Field(default_factory=ArtifactConfig)
    annotations: Path | None = None
    grid: GridConfig = Field(default_factory=GridConfig)
    further_mpp: tuple[_Mpp, ...] = ()
    stain: Annotated[StainConfig, Short("method")] = Field(default_factory=StainConfig)
    encoder: Annotated[EncoderConfig, Short("name")] = Field(default_factory=EncoderConfig)
    extraction: ExecutionConfig = Field(default_factory=ExecutionConfig)
    only: Path | None = None
    shard: Annotated[tuple[int, int] | None, BeforeValidator(_shard)] = None
    inventory: Path | None = None
    known_failures: Path | None = None
    overwrite: bool = False
    dicom_id: Literal["container", "series", "file"] = "container"
    dicom_patients: Literal["none", "pseudonym"] = "none"
    dicom_key: Path | None = None

    @model_validator(mode="after")
    def _check_inventory(self) -> Self:
        for key in ("mpp_table", "default_mpp"):
            if self.inventory is not None and getattr(self, key) is not None:
                raise contradiction(
                    "the inventory holds the resolution of every slide; state others to wsi-ncmi inventory",
                    key, "inventory",
                )  # fmt: skip
        if self.inventory is not None and (self.dicom_id != "container" or self.dicom_key is not None):
            key = "dicom_id" if self.dicom_key is None else "dicom_key"
            raise contradiction("the inventory holds ids and patients; state others to it", key, "inventory")
        return self

    @model_validator(mode="after")
    def _check_patients(self) -> Self:
        if (self.dicom_patients == "pseudonym") != (self.dicom_key is not None):
            raise contradiction(
                "pseudonyms need the key of the site, and only they do; give both or neither",
                "dicom_patients", "dicom_key",
            )  # fmt: skip
        return self

    @property
    def patient_key(self) -> bytes | None:
        """The key of the pseudonyms; None without.

        Raises:
            InputError: There is no such key.
        """
        return None if self.dicom_key is None else read_key(self.dicom_key)

    @model_validator(mode="after")
    def _grid_suits_the_encoder(self) -> Self:
        for grid in (self.grid, *(replace(self.grid, mpp=mpp) for mpp in self.further_mpp)):
            check_encoder_grid(grid, self.encoder.name)
        return self
