"""The trained model on disk: ``model.safetensors`` for the numbers, ``model.json`` for what they mean."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, parse_json, sha256_file, write_json
from wsi_ncmi.losses import LossConfig, build_loss, loss_config
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.mil import BagBatch, ModelConfig, build_aggregator, model_config
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.training.scoring import probabilities_of

MODEL_JSON = "model.json"
MODEL_WEIGHTS = "model.safetensors"
_SCHEMA = "wsi-ncmi-model/1"
_TILES_AT_ONCE = 4096

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of stored tensors by their names."""


@dataclass(frozen=True)
class TrainedModel:
    """A model ready to predict.

    Attributes:
        aggregator: Bag → embedding, in evaluation mode.
        criterion: Embedding → probabilities, in evaluation mode.
        classes: Class names in the order of the probabilities.
        config: Content of ``model.json``: options, widths, class counts, encoder, seed, kept epoch,
            provenance.
    """

    aggregator: Aggregator
    criterion: Criterion
    classes: tuple[str, ...]
    config: Mapping[str, Any]

    @torch.no_grad()
    def predict(
        self, features: NDArray[np.floating[Any]], coordinates: NDArray[np.integer[Any]] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Predicts one slide.

        Args:
            features: Tile embeddings (N, D) of the encoder that the model was trained with, N at least 1.
            coordinates: Places of the tiles (N, 2), level-0 px; needed by models with distance biases only.

        Returns:
            Probabilities (C,), float64, summing to 1, and the tiles' attention (N,), float32, summing to 1.

        Raises:
            InputError: No tile, another width than the model's, a number that isn't finite, or no coordinates
                where the model needs them.
        """
        bag = self._checked(features)
        places = None
        if coordinates is not None and self.aggregator.needs_coordinates:
            places = torch.from_numpy(np.asarray(coordinates, dtype=np.float32))
        output = self.aggregator(BagBatch.pack([bag], [places]).to(self._device))
        return probabilities_of(self.criterion, output.embedding)[0], output.attention.float().cpu().numpy()

    @torch.no_grad()
    def tile_probabilities(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """What the model says of each tile alone: every tile is taken for a bag of its own.

        Args:
            features: As in :meth:`predict`.

        Returns:
            Class probabilities of each tile, float64 (N, C), rows summing to 1.

        Raises:
            InputError: As in :meth:`predict`.
        """
        bag = self._checked(features)
        parts = []
        for start in range(0, len(bag), _TILES_AT_ONCE):
            part = bag[start : start + _TILES_AT_ONCE]
            places = torch.zeros(len(part), 2) if self.aggregator.needs_coordinates else None
            batch = BagBatch(part, torch.ones(len(part), dtype=torch.int64), places)
            output = self.aggregator(batch.to(self._device))
            parts.append(probabilities_of(self.criterion, output.embedding))
        return np.concatenate(parts)

    @property
    def _device(self) -> torch.device:
        return self.aggregator.input_mean.device

    def _checked(self, features: NDArray[np.floating[Any]]) -> torch.Tensor:
        width = self.aggregator.in_features
        if features.ndim != 2 or features.shape[0] == 0 or features.shape[1] != width:
            raise InputError(
                f"The model takes features of shape (tiles, {width}) with at least one tile, got "
                f"{tuple(features.shape)}; extract the slide with the encoder the model was trained with."
            )
        if not np.isfinite(features).all():
            raise InputError("The slide's features hold NaN or infinity; extract the slide again.")
        return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))

    def to(self, device: torch.device | str) -> TrainedModel:
        """Moves the model to a device (in place) and returns it."""
        self.aggregator.to(device)
        self.criterion.to(device)
        return self


def write_trained(
    folder: Path,
    aggregator: Aggregator,
    criterion: Criterion,
    *,
    classes: tuple[str, ...],
    model: ModelConfig,
    loss: LossConfig,
    class_counts: tuple[int, ...],
    extra: Mapping[str, Any],
) -> TrainedModel:
    """Writes the weights, then their description, each atomically: a ``model.json`` speaks of whole weights.

    Args:
        folder: Where to; it exists.
        aggregator: The fitted model.
        criterion: The fitted criterion.
        classes: Class names in target order.
        model: Options that ``aggregator`` was built with.
        loss: Options that ``criterion`` was built with.
        class_counts: Training slides of each class.
        extra: More JSON-ready entries of ``model.json``.

    Returns:
        The same model, as ``load_trained`` would give it.
    """
    content = {
        "classes": list(classes),
        "in_features": aggregator.in_features,
        "embedding_width": aggregator.embedding_width,
        "model": asdict(model),
        "loss": asdict(loss),
        "class_counts": list(class_counts),
        **extra,
    }
    config = write_modules(folder, {"aggregator": aggregator, "criterion": criterion}, _SCHEMA, content)
    return TrainedModel(aggregator.eval(), criterion.eval(), classes, config)


def write_modules(
    folder: Path, modules: Mapping[str, nn.Module], schema: str, content: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes ``model.safetensors``, then ``model.json``, each atomically.

    Args:
        folder: Where to; it exists.
        modules: Modules by the prefix of their tensors' names.
        schema: Name and version of the format.
        content: JSON-ready entries of ``model.json``, after schema, software and the weights' SHA-256.

    Returns:
        The whole content of ``model.json``.
    """
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous().clone()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    with atomic_path(folder / MODEL_WEIGHTS) as temporary:
        # Not save_file, whose errors don't say that the disk is full.
        temporary.write_bytes(tensor_bytes(tensors))
    digest = sha256_file(folder / MODEL_WEIGHTS)
    software = f"wsi-ncmi {__version__}"
    config = {"schema": schema, "software": software, "weights_sha256": digest, **content}
    write_json(folder / MODEL_JSON, config)
    return config


def load_trained(folder: Path) -> TrainedModel:
    """Loads the model of a run's folder, on the CPU, in evaluation mode. No code in the files is executed.

    Args:
        folder: For example ``RUN/fold_0/seed_0``.

    Raises:
        InputError: A file is missing, altered, or of another version.
    """
    folder = Path(folder)
    description, weights = read_model_files(folder, "RUN/fold_0/seed_0")
    return trained_from_bytes(description, weights, str(folder))


def read_model_files(folder: Path, example: str) -> tuple[bytes, bytes]:
    """Reads ``model.json`` and ``model.safetensors``.

    Args:
        folder: A run's folder.
        example: Such a folder, for the message.

    Raises:
        InputError: One of them is missing.
    """
    description, weights = folder / MODEL_JSON, folder / MODEL_WEIGHTS
    if not description.is_file() or not weights.is_file():
        raise InputError(
            f"{folder} holds no trained model ({MODEL_JSON} and {MODEL_WEIGHTS}); "
            f"give a folder such as {example}."
        )
    return description.read_bytes(), weights.read_bytes()


def trained_from_bytes(description: bytes, weights: bytes, where: str) -> TrainedModel:
    """Loads a model from the bytes of its two files, as :func:`load_trained` does.

    Args:
        description: Content of ``model.json``.
        weights: Content of ``model.safetensors``.
        where: Where they come from, for messages.

    Raises:
        InputError: They are altered, or of another version.
    """

    def build(config: Mapping[str, Any], stored: Shapes) -> dict[str, nn.Module]:
        largest = max([256, *(edge for shape in stored.values() for edge in shape)])
        classes, symbols = config["classes"], config["loss"].get("symbols")
        if not isinstance(classes, list) or len({str(name) for name in classes}) < len(classes):
            raise ValueError("the classes are no list of names that differ")
        # Code words are computed before they are stored.
        for what, value in (("the number of classes", len(classes)), ("loss.symbols", symbols)):
            if isinstance(value, int) and value > largest:
                raise ValueError(f"{what} is claimed to be {value}, and no stored tensor is so large")
        with _bounded(stored), torch.device("meta"):  # takes no memory, whatever sizes are claimed
            claimed = make(config)
        for prefix, module in claimed.items():
            for name, tensor in module.state_dict().items():
                found = stored.get(f"{prefix}.{name}")
                if found != tuple(tensor.shape):
                    raise ValueError(
                        f"{prefix}.{name} is claimed to be {tuple(tensor.shape)}, and stored as {found}"
                    )
        return make(config)

    def make(config: Mapping[str, Any]) -> dict[str, nn.Module]:
        classes = len(config["classes"])
        aggregator = build_aggregator(model_config(**config["model"]), int(config["in_features"]), classes)
        loss = loss_config(**config["loss"])
        criterion = build_loss(loss, classes, aggregator.embedding_width, config["class_counts"])
        return {"aggregator": aggregator, "criterion": criterion}

    config, modules = load_modules(description, weights, where, _SCHEMA, build)
    aggregator, criterion = modules["aggregator"], modules["criterion"]
    assert isinstance(aggregator, Aggregator)
    assert isinstance(criterion, Criterion)
    return TrainedModel(aggregator, criterion, tuple(str(name) for name in config["classes"]), config)


@contextlib.contextmanager
def _bounded(stored: Shapes) -> Iterator[None]:
    """Ends the building of modules of far more parameters than are stored (a claim of 10⁹ layers)."""
    left = 4 * len(stored) + 100  # some are made and put aside

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"it is claimed to have more than the {len(stored)} tensors stored")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def load_modules(
    description: bytes,
    weights: bytes,
    where: str,
    schema: str,
    build: Callable[[Mapping[str, Any], Shapes], Mapping[str, nn.Module]],
) -> tuple[dict[str, Any], Mapping[str, nn.Module]]:
    """Builds the modules that ``model.json`` describes and gives them their weights. No code is executed.

    Args:
        description: Content of ``model.json``.
        weights: Content of ``model.safetensors``.
        where: Where they come from, for messages.
        schema: The format that is wanted.
        build: Content of ``model.json`` and shapes of the stored tensors → modules by the prefix of their
            tensors' names.

    Returns:
        The content of ``model.json``, and the modules on the CPU in evaluation mode.

    Raises:
        InputError: They are altered, or of another version.
    """
    try:
        config: dict[str, Any] = parse_json(description)
        if config["schema"] != schema:
            raise InputError(
                f"{where}/{MODEL_JSON} has the schema {config['schema']!r} but this version reads {schema!r}."
            )
        if hashlib.sha256(weights).hexdigest() != config["weights_sha256"]:
            raise InputError(
                f"{where}/{MODEL_WEIGHTS} was altered after training "
                f"(its checksum isn't the one in {MODEL_JSON})."
            )
        tensors = load_tensors(weights)
        if lost := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
            raise InputError(f"{where}/{MODEL_WEIGHTS} holds numbers that are not finite in {lost[0]}.")
        modules = build(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        for prefix, module in modules.items():
            start = f"{prefix}."
            module.load_state_dict(
                {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
            )
            module.eval()
    except (
        AttributeError, KeyError, OverflowError, TypeError, ValueError, ValidationError, SafetensorError,
        RuntimeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise InputError(f"{where} isn't a model that this version can load ({reason}).") from error
    return config, modules
