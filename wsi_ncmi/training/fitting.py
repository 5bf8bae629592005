"""One run: a model fitted to the training part of a fold and chosen on its validation part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_ncmi.cohorts import BagSource, Cohort, Fold
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import require
from wsi_ncmi.core.files import job_folder
from wsi_ncmi.core.provenance import collect_provenance
from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.mil import build_aggregator
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.checkpoint import TrainedModel, write_trained
from wsi_ncmi.training.config import RunConfig, TrainingConfig
from wsi_ncmi.training.curves import tensorboard_writer, write_curves
from wsi_ncmi.training.loop import TrainingLoop
from wsi_ncmi.training.resume import LAST, first_difference, read_resume, run_identity
from wsi_ncmi.training.sampling import LabelledSlides, derive_seed, reserve_for
from wsi_ncmi.training.scoring import embed
from wsi_ncmi.training.warm_start import apply_warm_start


@dataclass(frozen=True)
class FitResult:
    """What a run left.

    Attributes:
        folder: Where ``model.safetensors``, ``model.json`` and ``curves.csv`` are.
        model: The kept model.
        best_epoch: Its epoch, from 1.
        curves: The rows of ``curves.csv``.
    """

    folder: Path
    model: TrainedModel
    best_epoch: int
    curves: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class FittedModules:
    """A fitted model in memory: both modules in evaluation mode, the kept epoch (from 1) and the curves."""

    aggregator: Aggregator
    criterion: Criterion
    best_epoch: int
    curves: tuple[Mapping[str, float], ...]


def fit(
    source: BagSource | BagCache,
    split: Fold,
    cohort: Cohort,
    config: RunConfig,
    *,
    out: Path,
    encoder: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> FitResult:
    """Fits one model. The fold's test part is neither read nor needed.

    In several processes of torchrun (``training.distributed.process_group``) each computes its share of every
    step and of the validation, and the first one writes. A run that was cut off continues from
    ``out/last.ckpt``; on CPU the result equals that of an undisturbed run bit for bit. The caller's random
    numbers and thread count are as before afterwards.

    Args:
        source: The bags, or a cache of them shared between runs.
        split: Training and validation slides.
        cohort: Labels of these slides.
        config: Model, loss, optimisation and seed.
        out: Folder of the run.
        encoder: What made the features (JSON-ready), stored in ``model.json``.
        on_epoch: Called with each row of ``curves.csv``.

    Returns:
        The kept model and the curves.

    Raises:
        InputError: A part is empty or lacks features, fewer than two classes to learn, or ``out`` holds a
            checkpoint of another run.
        TrainingError: A loss or gradient isn't finite.
    """
    training = config.training
    cache = source if isinstance(source, BagCache) else BagCache(source, training.cache_mib * 2**20)
    train = labelled_part("training", split.train, cohort)
    validation = labelled_part("validation", split.validation, cohort)
    counts = tuple(np.bincount(train.y, minlength=len(cohort.classes)).tolist())
    if sum(count > 0 for count in counts) < 2:
        raise InputError(
            f"The training part holds only the class {cohort.classes[train.y[0]]!r}; "
            "make other folds or add slides of another class."
        )
    cache.lengths(validation.slide_ids)
    identity = run_identity(cache.source, split, cohort, config)
    if training.tensorboard:  # before anything is started, not at the first epoch
        require(("tensorboard",), "training.tensorboard")
    job_folder(out)
    # The first process reads for all: another one might still see the file of an earlier step.
    resumed = distributed.from_first(read_resume(out) if distributed.rank() == 0 else None)
    if resumed is not None and (difference := first_difference(resumed[0], identity)):
        raise InputError(
            f"{out / LAST} belongs to another run ({difference}); remove it, or choose another output folder."
        )
    if resumed is not None:
        config, identity = _as_begun(config, identity, resumed[0])
    first = distributed.rank() == 0
    state = None if resumed is None else resumed[1]
    begun = 0 if state is None else int(state["epoch"])
    with tensorboard_writer(out, training.tensorboard and first, begun + 1) as to_tensorboard:

        def on_row(row: Mapping[str, float]) -> None:
            to_tensorboard(row)
            if on_epoch is not None:
                on_epoch(row)

        aggregator, criterion, loop, warm = _trained(
            cache, train, validation, counts, config, out, identity, classes=cohort.classes, state=state,
            on_epoch=on_row,
        )  # fmt: skip
    if not first:
        found = TrainedModel(aggregator, criterion, cohort.classes, {"identity": identity})
        return FitResult(out, found, loop.best_epoch, tuple(loop.curves))
    best = loop.curves[loop.best_epoch - 1]
    trained = write_trained(
        out, aggregator, criterion, classes=cohort.classes, model=config.model, loss=config.loss,
        class_counts=counts,
        extra={
            "training": asdict(config.training),
            "seed": config.seed,
            "best_epoch": loop.best_epoch,
            "validation": {k: v if np.isfinite(v) else None for k, v in best.items() if k.startswith("val_")},
            "encoder": dict(encoder or {"name": cache.source.encoder}),
            "identity": identity,
            **({"init": warm} if warm else {}),
            "provenance": collect_provenance(),
        },
    )  # fmt: skip
    write_curves(out, loop.curves)
    (out / LAST).unlink(missing_ok=True)
    return FitResult(out, trained, loop.best_epoch, tuple(loop.curves))


def _as_begun(
    config: RunConfig, identity: dict[str, Any], begun: Mapping[str, Any]
) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration and identity of an interrupted run: it ends as the version would have that began it."""
    if config.loss.name == "ncmi":
        later = {"class_mean_decision", "plain_when_far"} - set(begun["loss"])
        loss = loss_config(**{**asdict(config.loss), **dict.fromkeys(later, False)})
        config = replace(config, loss=loss)
    training = replace(config.training, batch_size=begun["training"]["batch_size"])
    return replace(config, training=training), {**identity, "training": training.identity()}


def fit_in_memory(
    cache: BagCache,
    train: LabelledSlides,
    validation: LabelledSlides,
    num_classes: int,
    config: RunConfig,
) -> FittedModules:
    """Fits one model as :func:`fit` does, from given labels, and writes nothing.

    The labels need not be those of a cohort: a study may have drawn them wrong on purpose.

    Args:
        cache: The bags.
        train: Training slides, of at least two classes.
        validation: Slides that choose the epoch and fit the decision, at least one.
        num_classes: Number of classes C.
        config: Model, loss, optimisation and seed.

    Raises:
        TrainingError: A loss or gradient isn't finite.
    """
    counts = tuple(np.bincount(train.y, minlength=num_classes).tolist())
    aggregator, criterion, loop, _ = _trained(cache, train, validation, counts, config)
    return FittedModules(aggregator, criterion, loop.best_epoch, tuple(loop.curves))


def _trained(
    cache: BagCache,
    train: LabelledSlides,
    validation: LabelledSlides,
    counts: Sequence[int],
    config: RunConfig,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    *,
    classes: Sequence[str] = (),
    state: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> tuple[Aggregator, Criterion, TrainingLoop, dict[str, Any]]:
    training = config.training
    device = distributed.resolve_device(training.device, "training.device")
    if training.precision == "fp16" and device.type != "cuda":
        raise InputError("training.precision 'fp16' needs a GPU; on a CPU choose 'bf16' or 'fp32'.")
    with distributed.private_torch(training.threads, device):
        aggregator, criterion = build_modules(config, cache.source.width, counts)
        cache.with_coordinates = aggregator.needs_coordinates
        reserve_for(cache, train, training)
        if config.model.standardise:
            of_means = aggregator.standardises_means
            aggregator.set_input_statistics(*cache.statistics(train.slide_ids, of_means=of_means))
        # A resumed run has its own weights; it does tell where the first ones came from.
        warm = {} if config.init is None else apply_warm_start(config, aggregator, criterion, classes)
        aggregator.to(device)
        criterion.to(device)
        place = () if distributed.world_size() == 1 else (distributed.rank(),)
        torch.manual_seed(derive_seed(config.seed, "training", *place))
        loop = TrainingLoop(
            aggregator, criterion, cache, train=train, validation=validation, config=config,
            folder=folder, identity=identity, on_epoch=on_epoch,
        )  # fmt: skip
        if state is not None:
            loop.load_state_dict(state)
        loop.run()
        _fit_decision(aggregator, criterion, cache, train, validation, training, device)
    return aggregator, criterion, loop, warm


def build_modules(
    config: RunConfig, in_features: int, class_counts: Sequence[int]
) -> tuple[Aggregator, Criterion]:
    """Builds aggregator and criterion with weights that follow from the seed.

    Each has a seed of its own, so the aggregator starts from the same weights under every loss.

    Args:
        config: Aggregator, criterion and seed.
        in_features: Width D of the features.
        class_counts: Training slides of each class.
    """
    torch.manual_seed(derive_seed(config.seed, "aggregator"))
    aggregator = build_aggregator(config.model, in_features, len(class_counts))
    torch.manual_seed(derive_seed(config.seed, "criterion"))
    criterion = build_loss(config.loss, len(class_counts), aggregator.embedding_width, class_counts)
    return aggregator, criterion


def labelled_part(name: str, slide_ids: tuple[str, ...], cohort: Cohort) -> LabelledSlides:
    """The slides of one part with class and patient.

    Raises:
        InputError: There are none, or one has no label.
    """
    if not slide_ids:
        raise InputError(
            f"The {name} part of the fold is empty; make the splits again with a validation share above 0."
        )
    rows, index = cohort.by_slide, cohort.class_index
    patients = {case_id: number for number, case_id in enumerate(cohort.case_ids)}
    for slide_id in slide_ids:
        if slide_id not in rows:
            raise InputError(f"Slide {slide_id!r} of the {name} part has no label; make the splits again.")
    return LabelledSlides(
        slide_ids,
        np.array([index[rows[slide_id].label] for slide_id in slide_ids], dtype=np.int64),
        np.array([patients[rows[slide_id].case_id] for slide_id in slide_ids], dtype=np.int64),
    )


def _fit_decision(
    aggregator: Aggregator,
    criterion: Criterion,
    cache: BagCache,
    train: LabelledSlides,
    validation: LabelledSlides,
    training: TrainingConfig,
    device: torch.device,
) -> None:
    # Validation alone by default: training embeddings are further apart than those of unseen slides, so a
    # scale fitted to them is overconfident.
    if training.decision == "none" or not criterion.fits_decision:
        return

    def embedded(parts: Sequence[LabelledSlides]) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.cat([embed(aggregator, cache, part.slide_ids, device) for part in parts])
        return z, torch.from_numpy(np.concatenate([part.y for part in parts])).to(device)

    held_out = [validation] if training.decision == "validation" else [train, validation]
    learned_from = embedded([train]) if criterion.uses_training else (None, None)
    criterion.fit_decision(*embedded(held_out), *learned_from)
