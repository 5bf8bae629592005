"""The type that a config class has for what is written at a path."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from wsi_ncmi.core.config.classes import Named

ConfigPath = tuple[str | int, ...]
"""Keys and list positions from the top of a configuration to a value."""


def value_at(content: Any, path: ConfigPath) -> Any:
    """The content at a path; None where a validator has made the path."""
    for part in path:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def hint_at(cls: Any, path: ConfigPath, content: Any) -> tuple[Any, Any]:
    """The type of what is written at a path, and what is written there."""
    hint, node = cls, content
    for part in path:
        items = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if get_origin(items) is dict:
            hint = get_args(items)[1]
        elif not isinstance(part, int):
            _, config = chosen(hint, node)
            hint = get_type_hints(config, include_extras=True)[part]
        node = value_at(node, (part,))
    return hint, node


def chosen(hint: Any, node: Any) -> tuple[Named | None, Any]:
    """The config class of a node, and what chose it by its name."""
    choice: Named | None = find_hint(hint, lambda item: isinstance(item, Named))
    if choice is None:
        return None, find_hint(hint, is_config)
    return choice, choice.registry()[choice.complete(node)["name"]]


def is_config(item: Any) -> bool:
    """Whether it is a config class."""
    return isinstance(item, type) and dataclasses.is_dataclass(item)


def find_hint(hint: Any, wanted: Callable[[Any], bool]) -> Any:
    """The first part of a type that is wanted; None without one."""
    if wanted(hint):
        return hint
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        found = find_hint(part, wanted)
        if found is not None:
            return found
    return None


def is_path(cls: Any, path: ConfigPath, content: Any) -> bool:
    """Whether what is written at a path names a file or folder."""
    try:
        return bool(find_hint(hint_at(cls, path, content)[0], lambda item: item is Path))
    except (KeyError, TypeError, IndexError):
        return False


def config_path(key: str) -> ConfigPath:
    """The path of a dotted key."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))
