"""Stands in for pydantic where a GPU machine lacks it: config classes are made, and nothing is validated."""

import dataclasses as _dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic_core import ValidationError as ValidationError


def Field(default: Any = _dataclasses.MISSING, *, default_factory: Any = None, **_: Any) -> Any:  # noqa: N802
    """A field with its default; bounds are ignored."""
    if default_factory is not None:
        return _dataclasses.field(default_factory=default_factory)
    return _dataclasses.field(default=default)


def model_validator(**_: Any) -> Callable[[Any], Any]:
    """Leaves the method as it is, uncalled."""
    return lambda method: method


class BeforeValidator:
    """Converts what was written."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        self.complete = func


AfterValidator = BeforeValidator
BaseModel = GetCoreSchemaHandler = object
ConfigDict = dict


class TypeAdapter:
    """Makes config objects from mappings."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def validate_python(self, value: Any) -> Any:
        """The object of a mapping, and of those inside it."""
        return _made(self.hint, value)

    def dump_python(self, value: Any, **_: Any) -> Any:
        """The mapping of an object."""
        return _dataclasses.asdict(value)


def _made(hint: Any, value: Any) -> Any:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        for mark in marks:
            if hasattr(mark, "complete"):
                value = mark.complete(value)
            if hasattr(mark, "registry") and isinstance(value, Mapping):
                inner = mark.registry()[value["name"]]
        return _made(inner, value)
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _made(get_args(hint)[1], item) for key, item in value.items()}
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_made(get_args(hint)[0], item) for item in value)
    if _dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        hints = get_type_hints(hint, include_extras=True)
        return hint(**{key: _made(hints[key], item) for key, item in value.items()})
    return value
