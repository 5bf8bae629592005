"""Configuration of training, sweeps and evaluation: data, folds, model, losses, optimisation, intervals."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from wsi_ncmi.cohorts import SplitConfig
from wsi_ncmi.core.config import configclass, contradiction
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.losses import AnyLoss, LossConfig, loss_config
from wsi_ncmi.mil import AnyModel, ModelConfig, model_config

_T = TypeVar("_T", LossConfig, ModelConfig)

PACE_FIELDS = ("cache_mib", "checkpoint_interval_s", "device", "tensorboard", "threads")
"""Fields that change how fast a run goes, not what it is: a finished run stays valid when they change."""


@configclass
class TrainingConfig:
    """How a model is fitted to the bags of one fold.

    The defaults were chosen on hold-outs inside the training parts of TCGA-RCC's folds, where they lie on a
    plateau: half to twice the rate, 10 to 40 epochs or another dropout move macro-F1 by less than its noise.

    Attributes:
        epochs: Passes over the training bags.
        batch_size: Bags per optimiser step (an epoch's steps get near-equal batches, so no step has one stray
            bag). ``auto``: 16, or as many fewer as give the whole training 1,000 steps, for small cohorts.
        learning_rate: Peak rate of AdamW; the model ``linear`` takes 20 times as much.
        weight_decay: Decoupled decay of weight matrices; biases and other vectors are not decayed.
        warmup: Share of all steps in which the rate rises linearly; a cosine to zero follows.
        gradient_clip: Largest global L2 norm of a step's gradient; 0 = no clipping.
        patience: Epochs without a better validation score after which training stops; ``None`` = never early.
        selection: What the kept epoch is best in, on the inner validation part: ``macro_f1`` and
            ``balanced_accuracy`` (higher wins, ties go to the lower validation loss) or ``loss`` (lower
            wins).
        ema: Decay per step of an exponential moving average of the weights, which then is what is validated
            and kept; 0 = off.
        max_instances: Tiles drawn from a bag in a training step (without replacement, anew every epoch);
            ``None`` = whole bags. Validation and prediction always see whole bags.
        sampler: ``shuffle`` = every bag once an epoch; ``class_balanced`` and ``patient_balanced`` = as many
            draws with replacement, each class or each patient equally likely.
        accumulate: Batches whose gradients make one optimiser step: ``accumulate`` times ``batch_size`` bags,
            of which ``batch_size`` are in memory together.
        precision: Of the training steps: ``fp32``; ``bf16``; ``fp16`` with loss scaling, on a GPU alone.
            Weights and everything outside the steps (validation, prediction) stay in float32.
        decision: Which bags the criterion's decision is fitted to after the best weights are restored:
            ``validation``, ``train+validation``, or ``none``. Never the test part.
        device: ``cpu``, ``cuda``, or ``auto`` (CUDA when there is one). Bit-equal repeats are promised on CPU
            only.
        tensorboard: Write the curves for TensorBoard too, into ``tensorboard/`` of the run's folder.
        threads: Torch threads of a run that has the machine to itself; runs in parallel have one each.
        cache_mib: Memory in MiB that bags may take, over all processes together: cached ones and those of
            batches in work. A cohort that is larger is read again in every epoch, one batch ahead.
        checkpoint_interval_s: Least seconds between two writes of the resume checkpoint; 0 = after every
            step.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gradient_clip: Annotated[float, Field(ge=0)] = 5.0
    patience: Annotated[int, Field(ge=1)] | None = None
    selection: Literal["macro_f1", "balanced_accuracy", "loss"] = "macro_f1"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_instances: Annotated[int, Field(ge=1)] | None = None
    sampler: Literal["shuffle", "class_balanced", "patient_balanced"] = "shuffle"
    accumulate: Annotated[int, Field(ge=1)] = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    decision: Literal["validation", "train+validation", "none"] = "validation"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tensorboard: bool = False
    threads: Annotated[int, Field(ge=1)] = 1
    cache_mib: Annotated[int, Field(ge=0)] = 2048
    checkpoint_interval_s: Annotated[float, Field(ge=0)] = 10.0

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.precision == "fp16" and self.device == "cpu":
            raise contradiction(
                "half precision is for a GPU; on the CPU take fp32, or bf16 where the processor has it",
                "precision", "device",
            )  # fmt: skip
        return self

    def bags_per_batch(self, training_slides: int) -> int:
        """Most bags of a batch, ``auto`` resolved for a training part of so many slides."""
        if self.batch_size != "auto":
            return self.batch_size
        return min(16, max(1, round(self.epochs * training_slides / (1000 * self.accumulate))))

    def identity(self) -> dict[str, Any]:
        """The fields that decide the weights, JSON-ready (all but ``PACE_FIELDS``)."""
        return {name: value for name, value in asdict(self).items() if name not in PACE_FIELDS}


@configclass
class RunConfig:
    """What decides the weights of one run, besides its data.

    Attributes:
        model: Aggregator.
        loss: Criterion.
        training: Optimisation.
        seed: Seed of weights, order and dropout. Equal seeds give equal initial aggregators, whatever the
            loss.
        init: Model whose weights the run starts from; None = as drawn.
    """

    model: AnyModel = Field(default_factory=model_config)
    loss: AnyLoss = loss_config()
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    seed: int = 0
    init: Path | None = None

    def identity(self) -> dict[str, Any]:
        """The settings that decide the weights, JSON-ready."""
        return {
            "model": asdict(self.model),
            "loss": asdict(self.loss),
            "training": self.training.identity(),
            "seed": self.seed,
        }


def _formats(value: Any) -> Any:
    """``none`` stands for no format."""
    names = [value] if isinstance(value, str) else value
    return [name for name in names if name != "none"] if isinstance(names, list | tuple) else names


@configclass
class EvaluationConfig:
    """How results get their intervals.

    Attributes:
        resamples: Bootstrap resamples over patients (AUROC and AUPRC take at most 2,000 of them).
        seed: Seed of the resamples.
        figures: File formats of the figures outside the report (``png``, ``svg``), or ``none``.
    """

    resamples: Annotated[int, Field(ge=100)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0
    figures: Annotated[tuple[Literal["png", "svg"], ...], BeforeValidator(_formats)] = ("png", "svg")


@configclass
class TrainConfig:
    """What to train on, and how.

    Attributes:
        name: Title of the report.
        features: Features that exist already (folder or packed ``.npz``).
        further_features: Features of the same tiles by additional encoders; the embeddings of all are joined.
        bag: What a bag is: the tiles of a ``slide``, or of all slides of a ``patient``.
        labels: CSV, or ``adapter:FILE`` such as ``camelyon17:stage_labels.csv``; None takes the labels inside
            a packed features file.
        order: The classes from the least to the most, where they have an order: the weighted kappas need it.
            That of CAMELYON-17's is known.
        splits: Splits file to use instead of making one.
        official_split: Use the split that the cohort ships (CAMELYON-17: centres 0–2 / 3–4; BRACS).
        split: How folds are made otherwise.
        model: Aggregator.
        init: Start from the weights of this model: a bundle, the folder of a run's model, or a checkpoint of
            FEATHER (MIL-Lab's ABMIL), CLAM, DSMIL or TransMIL.
        losses: Losses to train; the first one is the headline.
        seeds: Number of seeds (0, 1, …).
        training: Optimisation.
        evaluation: Intervals.
        workers: Processes of the training; None takes one a GPU where it runs on GPUs, else one a core.
        out: Run folder.
        overwrite: Replace runs of another configuration.
        allow_leak: Train on a split that leaks; the report says so.
    """

    name: str = "wsi-ncmi"
    features: Path | None = None
    further_features: tuple[Path, ...] = ()
    bag: Literal["slide", "patient"] = "slide"
    labels: str | None = None
    order: tuple[str, ...] = ()
    splits: Path | None = None
    official_split: bool = False
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: AnyModel = Field(default_factory=model_config)
    init: Path | None = None
    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1)] = (loss_config(),)
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    workers: Annotated[int, Field(ge=1)] | None = None
    out: Path = Path("out")
    overwrite: bool = False
    allow_leak: bool = False

    @model_validator(mode="after")
    def _check_folds_and_losses(self) -> Self:
        if self.splits is not None and self.official_split:
            raise contradiction(
                "both say which folds to use; leave the file out, or set official_split to false",
                "splits", "official_split",
            )  # fmt: skip
        if self.bag == "patient" and self.split.group == "slide_id":
            raise contradiction(
                "bags are of patients, and each slide is taken for a patient of its own; leave one out",
                "bag", "split.group",
            )  # fmt: skip
        _refuse_twice("losses", self.losses)
        return self

    @property
    def named_losses(self) -> dict[str, LossConfig]:
        """Name → loss: its own name, with a number where one name comes several times."""
        return _numbered(self.losses)

    def folder_of(self, loss: str) -> Path:
        """Folder of a loss: the run folder where it is the only one, else a folder of its own below."""
        return self.out if len(self.losses) == 1 else self.out / path_safe(loss)


def _refuse_twice(key: str, configs: tuple[LossConfig, ...] | tuple[ModelConfig, ...]) -> None:
    for number, config in enumerate(configs):
        if config in configs[:number]:
            first = f"{key}.{configs.index(config)}"
            raise contradiction("they are the same; leave one out", f"{key}.{number}", first)


def _numbered(configs: tuple[_T, ...]) -> dict[str, _T]:
    named: dict[str, _T] = {}
    for config in configs:
        name, number = config.name, 2
        while name in named:
            name, number = f"{config.name}-{number}", number + 1
        named[name] = config
    return named


@configclass
class SweepConfig(TrainConfig):
    """A sweep over encoders and models, which share all else; features and model are those of the cells.

    Attributes:
        encoders: Name → features, joined where there are several.
        models: Aggregators.
        out: Folder of the table and of all runs.
    """

    encoders: dict[str, tuple[Path, ...]] = Field(default_factory=dict)
    models: Annotated[tuple[AnyModel, ...], Field(min_length=1)] = (model_config(),)

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        _refuse_twice("models", self.models)
        of_cells = {"features": "encoders", "further_features": "encoders", "model": "models"}
        for key, several in of_cells.items():
            if getattr(self, key) != getattr(TrainConfig(), key):
                raise contradiction(f"a sweep takes its {several}; leave {key} out", key, several)
        return self

    def cells(self) -> dict[tuple[str, str], TrainConfig]:
        """(encoder, model) → training, in ``out/<encoder>/<model>``.

        Raises:
            InputError: No encoder, or two names that would share a folder.
        """
        if not self.encoders:
            raise InputError("A sweep needs features of at least one encoder.")
        if len({path_safe(name).casefold() for name in self.encoders}) < len(self.encoders):
            raise InputError("Two encoders of the sweep would share a folder; give them other names.")
        shared = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        return {
            (encoder, model): TrainConfig(
                **shared
                | {
                    "name": f"{self.name}: {encoder}, {model}",
                    "features": paths[0],
                    "further_features": paths[1:],
                    "model": config,
                    "out": self.out / path_safe(encoder) / path_safe(model),
                }
            )
            for encoder, paths in self.encoders.items()
            for model, config in _numbered(self.models).items()
        }


@configclass
class EvaluateConfig:
    """What predictions to evaluate, and how.

    Attributes:
        predictions: CSV with ``slide_id``, ``p_<class>…`` and, unless ``labels`` is given, ``label`` and
            ``case_id``; a run folder; or the predictions of CLAM or STAMP, a file or the folder of all folds.
        out: Output folder.
        labels: Labels table that gives truth, patient and centre.
        group: ``slide_id`` = each slide is a patient of its own.
        classes: Names of CLAM's classes 0, 1, ….
        order: The classes from the least to the most, where they have an order: the weighted kappas need it.
        against: Predictions of other runs on the same slides, to compare with in pairs.
        verdicts: ``verdicts.csv`` of the viewer: how far pathologists agree with the predictions. Without
            labels this alone is evaluated.
        evaluation: Intervals.
    """

    predictions: Path
    out: Path
    labels: str | None = None
    group: Literal["case_id", "slide_id"] | None = None
    classes: tuple[str, ...] | None = None
    order: tuple[str, ...] = ()
    against: tuple[Path, ...] = ()
    verdicts: Path | None = None
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
