"""Configuration of predicting new slides, exporting models, drawing heatmaps and viewing slides."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from wsi_ncmi.core.config import Short, configclass, contradiction
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.tissue.config import TissueConfig

_Mpp = Annotated[float, Field(gt=0.02, lt=100)]
_Probability = Annotated[float, Field(ge=0, le=1)]


def _check_textfile(path: Path) -> Path:
    if path.suffix != ".prom":
        raise ValueError("Prometheus' node_exporter reads files that end in .prom alone")
    return path


@configclass
class WatchConfig:
    """How a folder is watched.

    Attributes:
        interval_s: Seconds between two looks at the folder.
        settle_s: Seconds for which a slide's files must not have changed before it is read.
        until_idle_s: End when no slide has come for so many seconds; None = never.
        on_answer: Command that is given the path of each answer's JSON; no shell. It is called again where it
            fails; see ``docs/how-to/service.md``.
        on_answer_timeout_s: Seconds that it may take.
        audit_log: Folder of the audit trail; None = OUT/audit-log.
        metrics: Metrics as text for Prometheus, a file that ends in .prom; None = OUT/metrics.prom.
        metrics_port: Port of the loopback that the metrics are told on; None = on none.
        answer_again: Answer slides again that another model answered.
    """

    interval_s: Annotated[float, Field(gt=0)] = 10.0
    settle_s: Annotated[float, Field(ge=0)] = 30.0
    until_idle_s: Annotated[float, Field(ge=0)] | None = None
    on_answer: str = ""
    on_answer_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    audit_log: Path | None = None
    metrics: Annotated[Path, AfterValidator(_check_textfile)] | None = None
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    answer_again: bool = False


@configclass
class DicomResultsConfig:
    """What is written for DICOM viewers and archives, of slides that are DICOM themselves.

    Attributes:
        write: Tiles as annotations and the answer as a structured report, in the slide's study; see
            ``docs/how-to/dicom.md``.
        map: Add attention and evidence as a parametric map on a level of the slide's own pyramid.
        patient: Copy patient, study and specimen from the slide, into ``dicom-with-patient/``; without it
            they are empty.
    """

    write: bool = False
    map: bool = False
    patient: bool = False

    @model_validator(mode="after")
    def _check_write(self) -> Self:
        for name in ("map", "patient"):
            if getattr(self, name) and not self.write:
                raise contradiction(
                    "it is about the DICOM results; add --dicom, or leave it out", name, "write"
                )
        return self


@configclass
class PredictConfig:
    """Slides, models and output of a prediction job.

    Attributes:
        slides: Folder of slides, or one slide.
        model: Bundle of export, or run folder (RUN, or RUN/LOSS).
        out: Output folder; features in it are reused.
        shadow: A second model that predicts beside the first, into ``shadow/`` of the output folder alone.
        cache: Output folder of an extract whose features are reused and added to.
        weights: Weights of the encoder, where it has any.
        weights_dir: Folder of encoder weights; the environment variable ``WSI_NCMI_WEIGHTS`` does the same.
        cases: CSV with slide_id,case_id: adds a prediction for each patient.
        abstain_below: No decision below this probability; None = the bundle's own threshold.
        ood_threshold: Abstain from slides that are out of distribution (OOD) by at least this multiple of a
            bound of the training slides; ``inf`` only flags them.
        scale: Colours of heatmaps.
        top: Tiles in each gallery; 0 = no gallery.
        heatmaps: Pictures of attention and of the evidence for the predicted class, and the slide's page.
        geojson: Tiles with attention and evidence for QuPath.
        dicom: Results for DICOM viewers and archives.
        mpp_table: CSV with slide_id,mpp for slides whose own resolution is missing or wrong.
        default_mpp: µm per pixel where nothing else gives it.
        known_failures: CSV with ``slide_id`` and perhaps ``reason``, or a ledger; slides that fail as listed
            there don't count for the exit code.
        extraction: Processes and time limit.
        device: Where the encoder runs: ``auto``, ``cpu`` or ``cuda``.
        watch: Times of ``--watch``.
    """

    slides: Path
    model: Path
    out: Path
    shadow: Path | None = None
    cache: Path | None = None
    weights: Path | None = None
    weights_dir: Path | None = None
    cases: Path | None = None
    abstain_below: _Probability | None = None
    ood_threshold: Annotated[float, Field(ge=1)] = 1.0
    scale: Literal["percentile", "absolute"] = "percentile"
    top: Annotated[int, Field(ge=0)] = 12
    heatmaps: bool = True
    geojson: bool = True
    dicom: DicomResultsConfig = Field(default_factory=DicomResultsConfig)
    mpp_table: Path | None = None
    default_mpp: _Mpp | None = None
    known_failures: Path | None = None
    extraction: ExecutionConfig = Field(default_factory=ExecutionConfig)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    watch: WatchConfig = Field(default_factory=WatchConfig)


@configclass
class ExportConfig:
    """Run, content and target of an export.

    Attributes:
        run: Run folder of train (RUN, or RUN/LOSS), or the folder of a single model.
        out: Folder, or a file that ends in .zip.
        features: Features of the training; None = those beside the run.
        reference: Add the statistics of the training slides that out-of-distribution (OOD) slides are flagged
            by.
        coverage: Share of validation slides to decide; 1 = always decide.
        abstain_below: No decision below this probability, in place of the coverage.
        name: Name of the model; None = that of the run's folder.
        version: Version of the model, such as ``2.1``: letters, digits and ``._+-``.
        intended_use: What the model is for, for its card.
        limits: What the model is not for, for its card.
        torchscript: Add each member as TorchScript, compared with the model first.
        onnx: Add each member as ONNX, compared with the model first.
        overwrite: Replace the bundle that is there.
    """

    run: Path
    out: Path
    features: Path | None = None
    reference: bool = True
    coverage: Annotated[float, Field(gt=0, le=1)] = 0.9
    abstain_below: _Probability | None = None
    name: str | None = None
    version: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]{0,63})?$")] = ""
    intended_use: str = (
        "Research on whole-slide images of the kind that the model was trained on: the same stain, organ, "
        "specimen and resolution."
    )
    limits: str = (
        "Not a medical device and not validated for diagnosis. It knows only the classes listed here and "
        "predicts one of them on anything, also on tissue that it never saw. Its probabilities were "
        "calibrated on slides of the training cohort; on other scanners, stains or patients they may be "
        "wrong. The flags for slides out of distribution (OOD) catch coarse differences only."
    )
    torchscript: bool = False
    onnx: bool = False
    overwrite: bool = False

    @model_validator(mode="after")
    def _check_threshold(self) -> Self:
        if self.abstain_below is not None and self.coverage != 0.9:
            raise contradiction(
                "both set the probability to decide from; leave one of them out", "abstain_below", "coverage"
            )
        return self


@configclass
class HeatmapConfig:
    """Slides, models and form of heatmaps.

    Attributes:
        features: Features of the slides (ours, CLAM, TRIDENT or STAMP).
        model: Bundle of export, or run folder (RUN, or RUN/LOSS).
        out: Output folder.
        slides: The slides, folder or file; None draws maps on white and makes no gallery.
        compare: A second model, drawn beside the first.
        compare_features: Features for the second model; None = the same.
        only: Slide ids to draw; empty = all.
        classes: Classes whose evidence is drawn: ``a,b`` or ``all``; empty = the predicted one.
        scale: Colours of the maps.
        top: Tiles in the gallery; 0 = no gallery.
        overlay: Write the multi-resolution overlay.
        geojson: Write the tiles for QuPath.
        dicom: Results for DICOM viewers and archives; needs ``slides``.
    """

    features: Path
    model: Path
    out: Path
    slides: Path | None = None
    compare: Path | None = None
    compare_features: Path | None = None
    only: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    scale: Literal["percentile", "absolute", "both"] = "both"
    top: Annotated[int, Field(ge=0)] = 16
    overlay: bool = True
    geojson: bool = True
    dicom: DicomResultsConfig = Field(default_factory=DicomResultsConfig)

    @model_validator(mode="after")
    def _check_second(self) -> Self:
        if self.dicom.write and self.slides is None:
            raise contradiction(
                "DICOM objects refer to the slides; give them with --slides", "dicom.write", "slides"
            )
        if self.compare_features is not None and self.compare is None:
            raise contradiction("there is no second model to take them", "compare_features", "compare")
        return self

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales to draw."""
        return ("percentile", "absolute") if self.scale == "both" else (self.scale,)


@configclass
class ViewConfig:
    """What the viewer shows, and where it listens.

    Attributes:
        slide: One slide, or an output folder of predict.
        features: Features of the slide, file or folder; of an output folder that of predict's ``--cache``.
        model: Bundle or run whose attention and evidence are shown; needs features.
        annotations: QuPath or ASAP annotations, file or folder.
        slides: Folder of the slides of an output folder; None shows their thumbnails alone.
        against: Output folder of predict with another model, shown beside.
        default_mpp: µm per pixel where the slide has no resolution.
        tissue: How tissue is found.
        port: Port of the page; 0 takes a free one.
        listen: IP address to listen on; others than that of this machine need ``origin``.
        origin: Scheme and host at which a reverse proxy serves the page, such as https://slides.example.
    """

    slide: Path
    features: Path | None = None
    model: Path | None = None
    annotations: Path | None = None
    slides: Path | None = None
    against: Path | None = None
    default_mpp: _Mpp | None = None
    tissue: Annotated[TissueConfig, Short("method")] = Field(default_factory=TissueConfig)
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    listen: str = "127.0.0.1"
    origin: str | None = None
