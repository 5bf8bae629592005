"""The one way in which a room declares its options.

An options class is a frozen, keyword-only pydantic dataclass that forbids unknown keys. The room that
uses the options owns the class; ``wsi_ncmi.workflows.config`` composes them into the YAML configuration, so
a key of the YAML, a command-line flag and a Python argument are the same thing with the same check.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

__all__ = ["configclass"]

_T = TypeVar("_T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def configclass(cls: type[_T]) -> type[_T]:
    """Turns a class with annotated fields into a validated, frozen options class.

    Args:
        cls: Class whose annotated attributes (with defaults) are the options.

    Returns:
        A keyword-only frozen dataclass; construction raises ``pydantic.ValidationError`` on an unknown
        key or a value outside its constraints.
    """
    config: Any = ConfigDict(extra="forbid", validate_default=True)
    decorated: Any = dataclass(cls, frozen=True, kw_only=True, config=config)
    return cast("type[_T]", decorated)
