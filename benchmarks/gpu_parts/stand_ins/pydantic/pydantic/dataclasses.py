"""Dataclasses without validation."""

import dataclasses
from typing import Any


def dataclass(cls: type[Any], *, config: Any = None, **settings: Any) -> type[Any]:
    """The standard library's."""
    return dataclasses.dataclass(**settings)(cls)
