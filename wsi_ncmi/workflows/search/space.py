"""The space of a search: keys of the configuration and what values they may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    import optuna

__all__ = ["DEFAULT_SPACE", "Dimension", "Space", "check_space", "read_space", "suggest"]

_ROOMS = ("model", "training", "losses")


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


def _listed(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list) else value


Space = Mapping[str, Dimension]
_ADAPTER: TypeAdapter[dict[str, Annotated[Dimension, BeforeValidator(_listed)]]] = TypeAdapter(
    dict[str, Annotated[Dimension, BeforeValidator(_listed)]]
)

DEFAULT_SPACE: Space = {
    "training.learning_rate": Dimension(low=1e-4, high=5e-3, log=True),
    "training.weight_decay": Dimension(low=1e-4, high=1e-1, log=True),
    "training.epochs": Dimension(low=10, high=40),
    "model.dropout": Dimension(low=0.0, high=0.6),
    "model.input_dropout": Dimension(low=0.0, high=0.3),
}
"""What is searched without a file: the usual suspects of attention MIL on a few hundred slides."""


def read_space(path: Path) -> Space:
    """Reads a space: ``key: {low, high, log}`` or ``key: [choice, …]``, keys as ``--set`` takes them.

    Raises:
        InputError: Not such a file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        space = _ADAPTER.validate_python(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        reason = (
            error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())
        )
        raise InputError(
            f"The search space {path} can't be read ({reason}); write 'key: {{low: 0.0, high: 0.5}}' or "
            "'key: [a, b]' for each key."
        ) from error
    return space


def check_space(space: Space, build: Callable[[Mapping[str, Any]], object]) -> None:
    """Refuses a space that some trial would stumble over.

    Args:
        space: The space.
        build: Builds the configuration with some keys changed; raises ``InputError`` where that isn't valid.

    Raises:
        InputError: No dimension, a range without width, a key that isn't a model's, loss's or training's, or
            a value that the configuration does not take.
    """
    if not space:
        raise InputError("The search space is empty; name at least one key.")
    for key, dimension in space.items():
        if key.split(".")[0] not in _ROOMS:
            raise InputError(
                f"The search space has the key {key!r}; only {', '.join(_ROOMS)} can be searched."
            )
        if not dimension.choices:
            low, high = dimension.low, dimension.high
            if low is None or high is None or low >= high or (dimension.log and low <= 0):
                raise InputError(
                    f"The range of {key!r} in the search space is no range ({low} to {high}"
                    f"{', logarithmic' if dimension.log else ''}); give 'low' below 'high', or choices."
                )
        for value in dimension.ends():
            build({key: value})


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
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
