"""Configuration of a search: its budget, and the keys of the configuration with the values they may take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from wsi_ncmi.core.config import configclass, contradiction, load_yaml, read_config
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training.config import TrainConfig

if TYPE_CHECKING:
    import optuna

_SECTIONS = ("model", "training", "losses")


@configclass
class Dimension:
    """Values of one key.

    Attributes:
        low: Least value of a range.
        high: Greatest value of a range.
        log: Draw the logarithm evenly.
        choices: Values to choose from, in place of a range.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[tuple[Any, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        for key in ("low", "high", "log"):
            if self.choices and getattr(self, key):
                raise contradiction("a dimension is a range or a choice; leave one out", key, "choices")
        return self

    def ends(self) -> tuple[Any, ...]:
        """Values at which the configuration must be valid for all of the dimension to be."""
        return self.choices or (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Whether a value lies in the dimension."""
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        return isinstance(value, int | float) and self.low <= value <= self.high


def _dimension(value: Any) -> Any:
    """A list stands for choices."""
    return {"choices": value} if isinstance(value, list) else value


def _space(value: Any) -> Any:
    """Reads the space where it is given as a YAML file."""
    if not isinstance(value, str | Path):
        return value
    try:
        content = load_yaml(Path(value).read_text(encoding="utf-8"))[0]
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"The search space {value} can't be read: {' '.join(str(error).split())}."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(item, dict | list) for item in content.values()):
        raise InputError(
            f"The search space {value} can't be read; write 'key: {{low: 0.0, high: 0.5}}' or 'key: [a, b]' "
            "for each key."
        )
    return content


DEFAULT_SPACE: Mapping[str, Dimension] = {
    "training.learning_rate": Dimension(low=1e-4, high=5e-3, log=True),
    "training.weight_decay": Dimension(low=1e-4, high=1e-1, log=True),
    "training.epochs": Dimension(low=10, high=40),
    "model.dropout": Dimension(low=0.0, high=0.6),
    "model.input_dropout": Dimension(low=0.0, high=0.3),
}
"""What is searched without a file: the usual suspects of attention MIL on a few hundred slides."""


@configclass
class SearchConfig(TrainConfig):
    """What to search for the training, and with what budget.

    Attributes:
        out: Folder of the search: ``search.csv``, ``search.json``, ``studies/`` and the trained ``run/``.
        space: Key of the configuration → its values, or a YAML file of 'key: {low, high, log}' or
            'key: [choices]'.
        trials: Trials of each fold: the budget, part of what is reported.
        minutes: Time after which no trial is begun; the same command resumes.
        trial_seeds: Seeds of a trial, of which the mean validation macro-F1 counts.
    """

    space: Annotated[
        dict[str, Annotated[Dimension, BeforeValidator(_dimension)]], BeforeValidator(_space)
    ] = Field(default_factory=lambda: dict(DEFAULT_SPACE))
    trials: Annotated[int, Field(ge=1)] = 30
    minutes: Annotated[float, Field(ge=0)] | None = None
    trial_seeds: Annotated[int, Field(ge=1)] = 1

    def checked(self) -> SearchConfig:
        """The configuration with the space that its model has; one that no trial stumbles over.

        Raises:
            InputError: Several losses, no dimension, a range without width, a key outside model, losses and
                training, or a value that the configuration does not take.
        """
        if len(self.losses) != 1:
            raise InputError(f"A search needs exactly one loss, got {len(self.losses)}.")
        space = self.space
        if space == DEFAULT_SPACE:  # a model without one of its settings is searched without it
            having = {f"model.{field.name}" for field in fields(self.model)}
            space = {key: each for key, each in space.items() if key[:6] != "model." or key in having}
        if not space:
            raise InputError("The search space is empty; name at least one key.")
        for key, dimension in space.items():
            if key.split(".")[0] not in _SECTIONS:
                raise InputError(
                    f"The search space has the key {key!r}; only {', '.join(_SECTIONS)} can be searched."
                )
            if not dimension.choices:
                low, high = dimension.low, dimension.high
                if low is None or high is None or low >= high or (dimension.log and low <= 0):
                    raise InputError(
                        f"The range of {key!r} in the search space is no range ({low} to {high}"
                        f"{', logarithmic' if dimension.log else ''}); give 'low' below 'high', or choices."
                    )
            for value in dimension.ends():
                self.with_values({key: value})
        return replace(self, space=space)

    def with_values(self, values: Mapping[str, Any]) -> SearchConfig:
        """The configuration with the values of a trial: dotted key → value.

        Raises:
            InputError: A key or value is wrong.
        """
        overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        return read_config(SearchConfig, flags=self.content(), overrides=overrides)

    def content(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        content: dict[str, Any] = TypeAdapter(SearchConfig).dump_python(self, mode="json")
        return content


def suggest(trial: optuna.Trial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Draws the values of a trial; whole numbers where both ends of a range are whole."""
    values: dict[str, Any] = {}
    for key, dimension in space.items():
        if dimension.choices:
            # By position: the study's file stores numbers and texts alone.
            values[key] = dimension.choices[
                trial.suggest_categorical(key, list(range(len(dimension.choices))))
            ]
        elif isinstance(dimension.low, int) and isinstance(dimension.high, int):
            values[key] = trial.suggest_int(key, dimension.low, dimension.high, log=dimension.log)
        else:
            assert dimension.low is not None
            assert dimension.high is not None
            values[key] = trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
    return values
