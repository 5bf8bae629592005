"""The configuration of a whole job: one YAML, composed of the option classes that each room owns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from wsi_ncmi.cohorts import SplitConfig
from wsi_ncmi.core.config import configclass
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.features.stain.config import StainConfig
from wsi_ncmi.losses import LossConfig, loss_config
from wsi_ncmi.mil import ModelConfig
from wsi_ncmi.tiling.config import GridConfig
from wsi_ncmi.tissue.artifact_config import ArtifactConfig
from wsi_ncmi.tissue.config import TissueConfig
from wsi_ncmi.training import TrainingConfig

__all__ = ["EvaluationConfig", "ExecutionConfig", "JobConfig", "config_adapter"]


def _named(value: Any) -> Any:
    # ``losses: [ce, ncmi]`` is what people write; ``{name: ncmi, temperature: 1}`` where a setting differs.
    if isinstance(value, list | tuple):
        return [{"name": item} if isinstance(item, str) else item for item in value]
    return value


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
        check_space: Refuse a job whose features will most likely not fit on the disk.
    """

    workers: Annotated[int, Field(ge=1)] | None = None
    timeout_per_slide: Annotated[float, Field(gt=0)] | None = None
    buffer_mib: Annotated[int, Field(ge=64)] = 512
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    check_space: bool = True


@configclass
class EvaluationConfig:
    """How results get their intervals.

    Attributes:
        resamples: Bootstrap resamples over patients (AUROC and AUPRC take at most 2,000 of them).
        seed: Seed of the resamples.
        figures: File formats of the figures outside the report (``png``, ``svg``); empty = none.
    """

    resamples: Annotated[int, Field(ge=100)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0
    figures: tuple[Literal["png", "svg"], ...] = ("png", "svg")


@configclass
class JobConfig:
    """A whole job, from slides (or features) and labels to the report.

    Attributes:
        name: Title of the report.
        slides: Folder of slides; None when ``features`` is given.
        features: Features that exist already (folder or packed ``.npz``); None extracts them from ``slides``.
        further_features: Features of the same tiles by further encoders; the embeddings of all are joined.
        bag: What a bag is: the tiles of a ``slide``, or of all slides of a ``patient``.
        labels: CSV, or ``adapter:FILE`` such as ``camelyon17:stage_labels.csv``; None takes the labels inside
            a packed features file.
        out: Output folder: ``features/``, ``tissue/``, ``thumbnails/``, ``ledger.csv`` and ``run/``.
        mpp_table: CSV with ``slide_id,mpp`` for slides whose own resolution is missing or wrong.
        default_mpp: Resolution in µm per pixel of slides for which nothing else gives it.
        weights_dir: Folder of encoder weights; the environment variable ``WSI_NCMI_WEIGHTS`` does the same.
        tissue: Tissue segmentation.
        artifacts: What happens to tiles with pen ink, folds, borders or blur.
        annotations: Folder of QuPath's GeoJSON or ASAP's XML, a file a slide, that change the tissue.
        grid: Tile grid.
        further_mpp: Further resolutions in µm per pixel, each a set of features of its own; training and
            prediction use the one of ``grid``.
        stain: Stain normalisation of the tiles.
        encoder: Tile encoder.
        extraction: Processes and time limits.
        splits: Splits file to use instead of making one.
        official_split: Use the split that the cohort ships (CAMELYON-17: centres 0–2 / 3–4; BRACS).
        split: How folds are made otherwise.
        model: Aggregator.
        losses: Losses to train; the first one is the headline.
        seeds: Number of seeds (0, 1, …).
        training: Optimisation.
        evaluation: Intervals.
        workers: Processes of the training; None takes one a core.
        variants: Name → keys of this configuration that differ; each is a run of its own in ``OUT/run/NAME``,
            and those with the same features share them. Empty = one run, in ``OUT/run``.
    """

    name: str = "wsi-ncmi"
    slides: Path | None = None
    features: Path | None = None
    further_features: tuple[Path, ...] = ()
    bag: Literal["slide", "patient"] = "slide"
    labels: str | None = None
    out: Path = Path("out")
    mpp_table: Path | None = None
    default_mpp: Annotated[float, Field(gt=0.02, lt=100)] | None = None
    weights_dir: Path | None = None
    tissue: TissueConfig = Field(default_factory=TissueConfig)
    artifacts: ArtifactConfig = Field(default_factory=ArtifactConfig)
    annotations: Path | None = None
    grid: GridConfig = Field(default_factory=GridConfig)
    further_mpp: tuple[Annotated[float, Field(gt=0.02, le=100)], ...] = ()
    stain: StainConfig = Field(default_factory=StainConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    extraction: ExecutionConfig = Field(default_factory=ExecutionConfig)
    splits: Path | None = None
    official_split: bool = False
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    losses: Annotated[tuple[LossConfig, ...], BeforeValidator(_named), Field(min_length=1)] = (
        loss_config(name="ncmi"),
    )
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    workers: Annotated[int, Field(ge=1)] | None = None
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)


def config_adapter() -> TypeAdapter[JobConfig]:
    """The pydantic adapter of the configuration (validation, JSON schema, dumping)."""
    return TypeAdapter(JobConfig)
