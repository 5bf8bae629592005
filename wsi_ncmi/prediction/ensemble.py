"""Ensembles: the models of all folds and seeds of a run, averaged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.provenance import read_record
from wsi_ncmi.mil.config import MODELS
from wsi_ncmi.training import RUN_JSON, TrainedModel, load_trained

_MUST_AGREE = ("encoder", "encoder_weights_sha256", "transform", "mpp_target", "tile_px", "overlap_px")


@dataclass(frozen=True, repr=False)
class EnsembleOutput:
    """Output of an ensemble for a slide.

    Attributes:
        probabilities: Mean over members, float64 (C,).
        members: Of each member, float64 (M, C).
        agreement: Share of members that predict the same class.
        attention: Mean attention of each tile, float32 (N,), summing to 1.
        classes: Class names in the order of the probabilities.
    """

    probabilities: NDArray[np.float64]
    members: NDArray[np.float64]
    agreement: float
    attention: NDArray[np.float32]
    classes: tuple[str, ...] = ()

    @property
    def prediction(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    def __repr__(self) -> str:
        shown = ", ".join(f"{n} {p:.3f}" for n, p in zip(self.classes, self.probabilities, strict=False))
        return f"<EnsembleOutput {shown}; {self.agreement:.0%} of {len(self.members)} models agree>"

    @property
    def spread(self) -> NDArray[np.float64]:
        """Standard deviation over members, float64 (C,)."""
        return np.asarray(self.members.std(axis=0), dtype=np.float64)


@dataclass(frozen=True)
class Ensemble:
    """Trained models of one task.

    Attributes:
        members: The models, one a fold and seed.
        classes: Class names in the order of the probabilities.
        features: Encoder, weights, mpp, tile size… of the features that they were trained on; empty where
            unknown.
        name: Name of the run's folder.
    """

    members: tuple[TrainedModel, ...]
    classes: tuple[str, ...]
    features: Mapping[str, Any]
    name: str

    @property
    def has_attention(self) -> bool:
        """False where every tile has the same weight: there is no attention to show."""
        return not MODELS[str(self.members[0].config["model"]["name"])].pools_evenly

    def predict(
        self, features: NDArray[np.floating[Any]], coords: NDArray[np.integer[Any]] | None = None
    ) -> EnsembleOutput:
        """Predicts one slide.

        Args:
            features: Tile embeddings (N, D), N at least 1.
            coords: Level-0 corners of the tiles (N, 2), where known.

        Raises:
            InputError: The embeddings have another width than those of the training, or a model needs corners
                and there are none.
        """
        outputs = [member.predict(features, coords) for member in self.members]
        each = np.stack([probabilities for probabilities, _ in outputs])
        mean = each.mean(axis=0)
        return EnsembleOutput(
            probabilities=mean,
            members=each,
            agreement=float((each.argmax(axis=1) == mean.argmax()).mean()),
            attention=np.mean([attention for _, attention in outputs], axis=0, dtype=np.float32),
            classes=self.classes,
        )

    def tile_probabilities(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Mean over members of the class probabilities of every tile alone, float64 (N, C).

        Raises:
            InputError: As in :meth:`predict`.
        """
        mean: NDArray[np.float64] = np.mean(
            [member.tile_probabilities(features) for member in self.members], axis=0
        )
        return mean


def load_ensemble(run: Path) -> Ensemble:
    """Loads every model of a run.

    Args:
        run: ``RUN`` (with ``fold_*/seed_*`` inside), ``RUN/<loss>`` where several losses were trained, or the
            folder of a single model.

    Raises:
        InputError: No model, several losses to choose from, or models of different tasks or features.
    """
    folders = model_folders(run)
    members = tuple(load_trained(folder) for folder in folders)
    first = members[0]
    features = _features_of(first)
    for folder, member in zip(folders, members, strict=True):
        if member.classes != first.classes or _features_of(member) != features:
            raise InputError(
                f"{folder} was trained on other classes or features than {folders[0]}; an ensemble needs "
                "models of one run."
            )
    return Ensemble(members, first.classes, features, run.name)


def check_features(ensemble: Ensemble, found: Mapping[str, Any]) -> None:
    """Refuses features that the models were not trained for.

    Args:
        ensemble: The models.
        found: Attributes of the features, under the names of the feature files.

    Raises:
        InputError: Encoder, weights, transform, mpp, tile size or overlap differ; the first one is named.
    """
    for key in _MUST_AGREE:
        expected, got = ensemble.features.get(key), found.get(key)
        if expected is not None and expected != got:
            raise InputError(
                f"The model {ensemble.name} was trained on features with {key} {expected!r}, these have "
                f"{got!r}; extract the slides with the same encoder, weights (--weights) and grid."
            )


def model_folders(run: Path) -> list[Path]:
    """The folders of a run's models in the order of folds and seeds.

    Raises:
        InputError: No model, or several losses to choose from.
    """
    if (run / "model.json").is_file():
        return [run]
    found = sorted(path.parent for path in run.glob("fold_*/seed_*/model.json"))
    if found:
        return found
    losses = _loss_folders(run)
    if len(losses) == 1:
        return model_folders(losses[0])
    if losses:
        names = ", ".join(path.name for path in losses)
        raise InputError(f"{run} holds models of several losses ({names}); give one, such as {losses[0]}.")
    raise InputError(f"{run} holds no trained model; give the folder that 'wsi-ncmi train' wrote.")


def headline_folder(run: Path) -> Path:
    """The folder of a run's headline loss where it holds several; else the run itself.

    Raises:
        InputError: The run's record can't be read.
    """
    losses = _loss_folders(run)
    headline = read_record(run / RUN_JSON).get("headline") if len(losses) > 1 else None
    return next((folder for folder in losses if folder.name == headline), run)


def _loss_folders(run: Path) -> list[Path]:
    return sorted({path.parents[2] for path in run.glob("*/fold_*/seed_*/model.json")})


def _features_of(model: TrainedModel) -> dict[str, Any]:
    return dict(model.config.get("encoder") or {})
