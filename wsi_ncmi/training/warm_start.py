"""Warm start: the weights of another model as a run's first ones, with a strict account of what fitted."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ncmi.cohorts import read_splits
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import parse_json, sha256_file
from wsi_ncmi.losses import LossConfig, loss_config
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.mil import ModelConfig, build_aggregator, model_config
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.mil.external_checkpoints import read_tensors
from wsi_ncmi.mil.external_models import translate
from wsi_ncmi.training.bundle_io import MANIFEST, MEMBERS, read_files
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS, TrainedModel, trained_from_bytes
from wsi_ncmi.training.config import RunConfig
from wsi_ncmi.training.data import TrainingData

_LOG = logging.getLogger(__name__)
_STATISTICS = ("input_mean", "input_scale")
_SAME_FEATURES = ("encoder", "encoder_weights_sha256", "transform", "level")


@dataclass(frozen=True)
class WarmStart:
    """The weights to start from.

    Attributes:
        name: Of the file, for messages and records.
        sha256: Hash of the weights' file.
        model: Aggregator that they are of.
        in_features: Width D of its features.
        num_classes: C; 0 where there is no head.
        aggregator: State of the aggregator.
        classes: Class names, where they are known.
        loss: Criterion, where it is one of ours.
        criterion: Its parameters.
        features: What made the features that it was trained on, as far as known.
        trained_on: Slides that it was trained and chosen on, where the run's splits lie beside it.
        labels_sha256: Hash of the labels of its cohort, where known.
    """

    name: str
    sha256: str
    model: ModelConfig
    in_features: int
    num_classes: int
    aggregator: Mapping[str, Tensor]
    classes: tuple[str, ...] = ()
    loss: LossConfig | None = None
    criterion: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    trained_on: frozenset[str] = frozenset()
    labels_sha256: str = ""


@dataclass(frozen=True)
class WarmFit:
    """What of a warm start fits a run.

    Attributes:
        aggregator: Names of the aggregator's tensors that are taken.
        criterion: Names of the criterion's.
        left: What is left as it was drawn, and why, in sentences' parts.
    """

    aggregator: tuple[str, ...]
    criterion: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        taken = f"{counted(len(self.aggregator), 'tensor')} of the aggregator"
        taken += f" and {len(self.criterion)} of the criterion" if self.criterion else ""
        return f"{taken} taken; left: {'; '.join(self.left) or 'nothing'}"


def read_warm_start(path: Path) -> WarmStart:
    """Reads the weights to start from.

    Args:
        path: A bundle (of several models the first), the folder of a run's model, or a checkpoint of CLAM,
            DSMIL, TransMIL or MIL-Lab's ABMIL (FEATHER): ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors``.

    Raises:
        InputError: It is none of them, or several models to choose from.
    """
    if path.name == MODEL_WEIGHTS and (path.parent / MODEL_JSON).is_file() and not _is_external(path.parent):
        path = path.parent
    if not path.exists():
        raise InputError(f"There is no model {path} to start from; check --init.")
    stamp = path / MODEL_WEIGHTS if path.is_dir() else path
    return _read(path, stamp.stat().st_mtime_ns if stamp.exists() else 0)


def _is_external(folder: Path) -> bool:
    try:
        content = parse_json((folder / MODEL_JSON).read_bytes())
    except (OSError, ValueError):
        return False  # told where a run's model is read
    return isinstance(content, dict) and "schema" not in content


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> WarmStart:
    if path.is_dir() and not (path / MODEL_JSON).is_file() and not (path / MANIFEST).is_file():
        found = sorted(each.parent for each in path.glob("**/seed_*/" + MODEL_JSON))
        if not found:
            raise InputError(f"{path} holds no trained model; give a bundle or RUN/fold_0/seed_0.")
        raise InputError(f"{path} holds {counted(len(found), 'model')}; give one, such as {found[0]}.")
    if path.is_dir() and (path / MODEL_JSON).is_file():
        if not (path / MODEL_WEIGHTS).is_file():
            raise InputError(
                f"{path} holds no {MODEL_WEIGHTS}, the weights of its {MODEL_JSON}; give another model."
            )
        description, weights = (path / MODEL_JSON).read_bytes(), (path / MODEL_WEIGHTS).read_bytes()
        trained = trained_from_bytes(description, weights, str(path))
        return _of_ours(path.name, trained, trained_on=_trained_on(path))
    if path.is_dir() or path.resolve().suffix == ".zip":
        files = read_files(path)
        try:
            manifest = parse_json(files[MANIFEST])
            member = f"{MEMBERS}/{manifest['members'][0]}"
            description, weights = files[f"{member}/{MODEL_JSON}"], files[f"{member}/{MODEL_WEIGHTS}"]
            labels = str((manifest["training"].get("hashes") or {}).get("labels", ""))
            if (count := len(manifest["members"])) > 1:
                _LOG.info("%s holds %d models; the training starts from the first.", path.name, count)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise InputError(f"{MANIFEST} of {path} can't be read ({error}); export it again.") from error
        return _of_ours(
            path.name, trained_from_bytes(description, weights, f"{path}/{member}"), labels=labels
        )
    other = translate(read_tensors(path))
    return WarmStart(
        path.name, sha256_file(path), other.config, other.in_features, other.num_classes, other.aggregator
    )


def _of_ours(
    name: str, trained: TrainedModel, *, trained_on: frozenset[str] = frozenset(), labels: str = ""
) -> WarmStart:
    about = trained.config
    return WarmStart(
        name,
        str(about["weights_sha256"]),
        model_config(**about["model"]),
        trained.aggregator.in_features,
        len(trained.classes),
        trained.aggregator.state_dict(),
        trained.classes,
        loss_config(**about["loss"]),
        {name: tensor.detach() for name, tensor in trained.criterion.named_parameters()},
        dict(about.get("encoder") or {}),
        trained_on,
        labels,
    )


def _trained_on(folder: Path) -> frozenset[str]:
    """Training and validation slides of a run's model; empty where its splits aren't beside it."""
    fold = folder.parent.name.removeprefix("fold_")
    for above in folder.parents[1:3]:
        if fold.isdigit() and (above / "splits.json").is_file():
            folds = read_splits(above / "splits.json").folds
            if int(fold) < len(folds):
                return frozenset((*folds[int(fold)].train, *folds[int(fold)].validation))
    return frozenset()


def fitting_parts(
    start: WarmStart, config: RunConfig, in_features: int, num_classes: int, classes: Sequence[str] = ()
) -> WarmFit:
    """Holds a warm start against a run: all of the aggregator but its class-wise parts must fit.

    Args:
        start: The weights.
        config: The run.
        in_features: Width D of its features.
        num_classes: Its number of classes.
        classes: Their names, where known.

    Raises:
        InputError: Another aggregator, features of another width, or a tensor that is missing or of another
            shape.
    """
    model, there = config.model, start.model
    if model.name != there.name:
        raise InputError(
            f"{start.name} is of the aggregator '{there.name}' and the training is of '{model.name}'; give "
            f"--model {there.name}."
        )
    if in_features != start.in_features:
        raise InputError(
            f"{start.name} takes features of width {start.in_features}, these have {in_features}; a model "
            "can only start from one of the same encoder."
        )
    if model.standardise != there.standardise:
        raise InputError(
            f"{start.name} was trained with model.standardise {there.standardise}; give --set "
            f"model.standardise={str(there.standardise).lower()}."
        )
    shapes = _shapes(model, in_features, num_classes)
    with_one_more = _shapes(model, in_features, num_classes + 1)
    own_classes = bool(classes) and start.classes == tuple(classes)
    class_wise = set() if own_classes else {n for n, shape in shapes.items() if shape != with_one_more.get(n)}
    for name, shape in shapes.items():
        found = start.aggregator.get(name)
        missing = found is None and name not in _STATISTICS
        if name not in class_wise and (missing or (found is not None and tuple(found.shape) != shape)):
            has = "lacks it" if found is None else f"has {tuple(found.shape)}"
            raise InputError(
                f"{start.name} doesn't fit the aggregator: {name} is {shape} and {start.name} {has}"
                f"{_remedy(model, there)}."
            )
    taken = tuple(name for name in shapes if name in start.aggregator and name not in class_wise)
    left = [f"{name} (of each class)" for name in sorted(class_wise)]
    criterion: tuple[str, ...] = ()
    if start.loss is None:
        left.append("the head (its classes have no names)" if start.num_classes else "the head (none)")
    elif start.loss != config.loss:
        left.append(f"the criterion (of the loss '{start.loss.name}' with its settings)")
    elif not own_classes:
        left.append(f"the criterion (of {start.num_classes} other classes: {', '.join(start.classes)})")
    else:
        criterion = tuple(start.criterion)
    return WarmFit(taken, criterion, tuple(left))


def _shapes(model: ModelConfig, in_features: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        built = build_aggregator(model, in_features, num_classes)
    return {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


def _remedy(model: ModelConfig, there: ModelConfig) -> str:
    differing = [
        f"--set model.{key}={value}"
        for key, value in _flat(asdict(there)).items()
        if value is not None and value != _flat(asdict(model)).get(key) and not key.endswith("dropout")
    ]
    return f"; give {' '.join(differing)}" if differing else ""


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return flat


def check_warm_start(config: RunConfig, data: TrainingData, *, allow_leak: bool) -> None:
    """Refuses, before any work, a warm start that doesn't fit or knows the test slides; logs what fits.

    Raises:
        InputError: As :func:`read_warm_start` and :func:`fitting_parts`; features of another encoder; or it
            was trained on patients of a test part, unless ``allow_leak``.
    """
    if config.init is None:
        return
    start = read_warm_start(config.init)
    fit = fitting_parts(start, config, data.source.width, len(data.cohort.classes), data.cohort.classes)
    for key in _SAME_FEATURES:
        there, here = start.features.get(key), data.origin.get(key)
        if there is not None and here is not None and there != here:
            raise InputError(
                f"{start.name} was trained on features with {key} {there!r}, these have {here!r}; a model "
                "can only start from one of the same features."
            )
    if known := _known_patient(start, data):
        text = f"{start.name} was trained on {known}: the result would be too good"
        if not allow_leak:
            raise InputError(f"{text}; start from a model of another cohort, or pass --allow-leak.")
        _LOG.warning("%s.", text)
    _LOG.info("Warm start from %s (%s): %s.", start.name, start.model.name, fit)


def _known_patient(start: WarmStart, data: TrainingData) -> str:
    if start.labels_sha256 and start.labels_sha256 == data.hashes.get("labels"):
        return "this very cohort, test slides included"
    splits, cohort = data.slides
    tables = (cohort.by_slide, data.cohort.by_slide)  # that run's bags may have been patients
    patients = {by[each].case_id for by in tables for each in start.trained_on if each in by}
    for number, fold in enumerate(splits.folds):
        for slide_id in fold.test:
            if cohort.by_slide[slide_id].case_id in patients:
                return f"patients of the test part of fold {number}, such as that of slide {slide_id!r}"
    return ""


def apply_warm_start(
    config: RunConfig, aggregator: Aggregator, criterion: Criterion, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Puts the weights into freshly built modules.

    Args:
        config: The run, with ``init``.
        aggregator: Its aggregator; the statistics of its input are those of the warm start, where known.
        criterion: Its criterion.
        classes: Class names, where known.

    Returns:
        The account of it for ``model.json``.

    Raises:
        InputError: As :func:`read_warm_start` and :func:`fitting_parts`.
    """
    assert config.init is not None
    start = read_warm_start(config.init)
    fit = fitting_parts(start, config, aggregator.in_features, criterion.num_classes, classes)
    _copy(aggregator, {name: start.aggregator[name] for name in fit.aggregator})
    _copy(criterion, {name: start.criterion[name] for name in fit.criterion})
    return {"file": start.name, "sha256": start.sha256, **asdict(fit)}


def _copy(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    module.load_state_dict({**module.state_dict(), **tensors}, strict=True)
