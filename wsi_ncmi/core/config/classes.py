"""Config classes, and fields whose class or key depends on what is written."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_T = TypeVar("_T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def configclass(cls: type[_T]) -> type[_T]:
    """Turns a class with annotated fields into a validated, frozen config class.

    Args:
        cls: Class whose annotated attributes (with defaults) are the settings, each with its help text under
            ``Attributes:`` in the docstring.

    Returns:
        A keyword-only frozen pydantic dataclass; construction raises ``ValidationError`` on an unknown
        key or a value outside its constraints.
    """
    settings: Any = ConfigDict(extra="forbid", validate_default=True)
    decorated: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True, config=settings)
    return cast("type[_T]", decorated)


@dataclass(frozen=True)
class Named:
    """Marks a field whose class is chosen by ``name`` among those of a registry (a tagged union).

    ``Annotated[LossConfig, Named("loss", losses, "ncmi")]`` takes ``"ce"``, ``{"name": "ce"}`` or an object.

    Attributes:
        what: What the registry holds, for messages (``loss``).
        registry: Gives name → config class; called once, when the config class with the field is made.
        default: Name where none is given.
        written_by_0_1: Keys that version 0.1 wrote for every entry, whatever its name. Where all of them are
            there, those that the chosen class doesn't have are dropped: they had no effect.
    """

    what: str
    registry: Callable[[], Mapping[str, type[Any]]]
    default: str
    written_by_0_1: frozenset[str] = frozenset()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(cls) for name, cls in self.registry().items()}
        union = core_schema.tagged_union_schema(choices, discriminator="name", from_attributes=True)
        return core_schema.no_info_before_validator_function(self.complete, union)

    def complete(self, value: Any) -> Any:
        """The mapping that the union can read, from a bare name, a mapping without one, or what 0.1 wrote."""
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping):
            return value
        content = {"name": self.default, **value}
        cls = self.registry().get(content["name"]) if isinstance(content["name"], str) else None
        if cls is not None and self.written_by_0_1 and self.written_by_0_1 <= set(content):
            known = {field.name for field in dataclasses.fields(cls)}
            return {key: item for key, item in content.items() if key in known}
        return content


@dataclass(frozen=True)
class Short:
    """Marks a field whose config may be written as the value of one of its keys: ``encoder: uni_v1``.

    Attributes:
        key: That key.
    """

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.complete, handler(source))

    def complete(self, value: Any) -> Any:
        """The mapping, from a bare value."""
        return {self.key: value} if isinstance(value, str) else value
