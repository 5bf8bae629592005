"""Reading of a configuration: the YAML file, then flags, then ``--set``."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from wsi_ncmi.core.config.classes import Short
from wsi_ncmi.core.config.faults import check_texts, dotted, fault_of, is_written
from wsi_ncmi.core.config.types import ConfigPath, config_path, find_hint, hint_at, value_at
from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    import yaml

_T = TypeVar("_T")
_MOST_VALUES = 100_000


def load_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Content and nodes of a YAML text.

    Raises:
        ValueError: Its aliases stand for more values than a configuration has: a few lines may say milliards.
        YAMLError: It is no YAML.
        RecursionError: It is too deep.
    """
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    sizes: dict[yaml.Node, int] = {}

    def size(node: yaml.Node) -> int:
        if node not in sizes:
            sizes[node] = 1  # for when it is met again inside itself
            inner: list[yaml.Node] = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                inner = [each for pair in node.value for each in pair]
            sizes[node] += sum(map(size, inner))
        return sizes[node]

    if root is not None and size(root) > _MOST_VALUES:
        raise ValueError(f"its aliases (*name) stand for more than {_MOST_VALUES:,} values")
    return yaml.safe_load(text), root


def config_from(cls: type[_T], values: Mapping[str, Any], where: str) -> _T:
    """Makes a config object from a mapping that somebody else wrote.

    Args:
        cls: Config class, or a type with :class:`Named`.
        values: Nested keys and values.
        where: Where they are from, for the message.

    Raises:
        InputError: A key or value is wrong.
    """
    return _validated(cls, values, lambda _: where)


def read_config(
    cls: type[_T],
    file: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    flag_names: Mapping[str, str] | None = None,
    one_of: Mapping[str, str] | None = None,
) -> _T:
    """Reads a configuration: the YAML file first, then flags, then ``--set``.

    Args:
        cls: Config class of the whole configuration.
        file: YAML file; None = the defaults.
        flags: Dotted key → value of a flag; None values are flags that were not given.
        overrides: ``a.b=value`` with the value in YAML; lists by index (``losses.0.temperature=1``).
        flag_names: Dotted key → the flag as the user writes it, where it isn't ``--<last part of the key>``.
        one_of: Key → list that it stands for where that has a single item (``loss`` → ``losses``).

    Returns:
        The validated configuration; relative paths are relative to the working directory.

    Raises:
        InputError: The file can't be read or parsed, or a key or value is wrong; the message names the key,
            the value, where it was written, and the nearest valid name.
    """
    content: dict[str, Any] = {}
    origins: dict[ConfigPath, str] = {}
    if file is not None:
        content, origins = _parse(file)
    single = dict(one_of or {})
    for key, many in single.items():
        if key not in content:
            continue
        if many in content:
            places = f"{key!r} ({origins[(key,)]}) and {many!r} ({origins[(many,)]})"
            raise InputError(f"{places} say the same; leave one out.")
        content[many] = [content.pop(key)]
        origins.update({(many, 0, *path[1:]): text for path, text in origins.items() if path[0] == key})
    for key, value in (flags or {}).items():
        if value is not None:
            name = (flag_names or {}).get(key, "--" + key.rpartition(".")[2].replace("_", "-"))
            replaced = _set(cls, content, key.split("."), value, name)
            written = name if isinstance(value, bool) else f"{name} {_short(value)}"
            _written_at(origins, replaced, written)
    for override in overrides:
        _apply(cls, content, origins, override, single)
    fallback = "the configuration" if file is None else file.name
    return _validated(cls, content, lambda path: _origin(origins, path, fallback))


def _validated(cls: type[_T], content: Any, where: Callable[[ConfigPath], str]) -> _T:
    """The config object of a content.

    Raises:
        InputError: What the first fault is: key, value, where it was written, nearest valid name.
    """
    check_texts(cls, content, where)
    try:
        return TypeAdapter(cls).validate_python(content)
    except ValidationError as error:
        paths, text = fault_of(error, cls, content)
        named = [repr(dotted(path)) for path in paths]
        if not text.startswith(" is missing"):
            named = [
                f"{name} ({_place(content, path, where, len(paths) > 1)})"
                for name, path in zip(named, paths, strict=True)
            ]
        raise InputError((" and ".join(named) or where(())) + text) from error


def _place(content: Any, path: ConfigPath, where: Callable[[ConfigPath], str], with_value: bool) -> str:
    """Where a key was written, and the value that stands there where it is short."""
    if not is_written(content, path):
        return "the default"
    place, value = where(path), value_at(content, path)
    shown = with_value and isinstance(value, str | int | float) and not place.startswith("--")
    return f"{place}: {str(value).lower() if isinstance(value, bool) else _short(value)}" if shown else place


def _parse(file: Path) -> tuple[dict[str, Any], dict[ConfigPath, str]]:
    """The content of a YAML file, and the line of each key."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        content, root = load_yaml(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The configuration {file} can't be read: {reason}.") from error
    if content is None or root is None:
        return {}, {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"The configuration {file} must be a mapping of keys to values.")
    origins: dict[ConfigPath, str] = {}
    parents: list[yaml.Node] = []

    def walk(node: yaml.Node, path: ConfigPath) -> None:
        origins[path] = f"{file.name}, line {node.start_mark.line + 1}"
        if node in parents:
            raise InputError(f"{'.'.join(map(str, path))!r} ({origins[path]}): the value contains itself.")
        parents.append(node)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                below, line = (*path, key.value), f"{file.name}, line {key.start_mark.line + 1}"
                if below in origins:
                    written = f"{origins[below]}, and again in line {key.start_mark.line + 1}"
                    raise InputError(f"{'.'.join(map(str, below))!r} is written twice ({written}).")
                walk(value, below)
                origins[below] = line
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                walk(item, (*path, number))
        parents.pop()

    walk(root, ())
    del origins[()]
    return content, origins


def _apply(
    cls: Any,
    content: dict[str, Any],
    origins: dict[ConfigPath, str],
    override: str,
    single: Mapping[str, str],
) -> None:
    import yaml

    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise InputError(f"--set takes a.b=value, got {override!r}.")
    try:
        value = load_yaml(text)[0] if text.strip() else None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"The value of --set {_short(override)!r} is no YAML; quote it.") from error
    many = single.get(parts[0], parts[0])
    if many not in content:
        # A list that stands at its default is changed in place, not replaced by one that has only this key.
        default = _default_of(cls, many)
        if isinstance(default, tuple | list):
            content[many] = [_written(item) for item in default]
    if parts[0] in single:
        items = content.get(many, ())
        if not isinstance(items, list | tuple):
            raise InputError(f"--set {override}: {many!r} is {items!r}, not a list; write {many}=[…] first.")
        if len(items) != 1:
            raise InputError(
                f"--set {override}: {parts[0]!r} stands for a single item of {many!r}, and there are "
                f"{len(items)}; write {many}.0.{'.'.join(parts[1:]) or 'name'}."
            )
        parts = [many, "0", *parts[1:]]
    replaced = _set(cls, content, parts, value, f"--set {override}")
    _written_at(origins, replaced, f"--set {override}")


def _written(item: Any) -> Any:
    """An item as somebody would write it: its name, and settings that aren't at their default."""
    if not dataclasses.is_dataclass(item):
        return item
    settings = TypeAdapter(type(item)).dump_python(item, mode="json", exclude_defaults=True)
    return {"name": item.name, **settings} if hasattr(item, "name") else settings


def _set(cls: Any, content: dict[str, Any], parts: Sequence[str], value: Any, origin: str) -> ConfigPath:
    """Sets a value in place; gives the path of what it replaces, shorter where a key is set in a value."""
    node: Any = content
    replaced = len(parts)
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        if isinstance(node, list | tuple):
            if not part.isdecimal() or int(part) >= len(node):
                raise InputError(f"{origin}: {part!r} is no index of a list of {len(node)} items.")
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
            if not last and not isinstance(node.get(part), dict | list | str):
                replaced = min(replaced, number) if node.get(part) is not None else replaced
                node[part] = {}
        else:
            raise InputError(f"{origin}: {part!r} is inside a single value.")
        if last:
            node[index] = value
            break
        if isinstance(node[index], str):  # a bare name, whose settings follow
            node[index] = {_key_of_bare(cls, config_path(".".join(parts[:number])), content): node[index]}
        elif isinstance(node[index], tuple):
            node[index] = list(node[index])
        node[index] = copy.copy(node[index])
        node = node[index]
    return config_path(".".join(parts[:replaced]))


def _key_of_bare(cls: Any, path: ConfigPath, content: Any) -> str:
    """The key that a bare text at a path stands for."""
    try:
        short = find_hint(hint_at(cls, path, content)[0], lambda item: isinstance(item, Short))
    except (KeyError, TypeError, IndexError):
        short = None
    return "name" if short is None else str(short.key)


def _written_at(origins: dict[ConfigPath, str], path: ConfigPath, text: str) -> None:
    """Notes where a value was written, in place of all that it replaces."""
    for below in [each for each in origins if each[: len(path)] == path]:
        del origins[below]
    origins[path] = text


def _origin(origins: Mapping[ConfigPath, str], path: ConfigPath, fallback: str) -> str:
    """The place where a key was written, or else the first key below it, or else its nearest parent."""
    if path and path not in origins:
        below = next((text for other, text in origins.items() if other[: len(path)] == path), None)
        if below is not None:
            return below
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return fallback


def _default_of(cls: Any, key: str) -> Any:
    field = {each.name: each for each in dataclasses.fields(cls)}.get(key)
    if field is None:
        return None
    if field.default is not dataclasses.MISSING:
        return field.default.default if isinstance(field.default, FieldInfo) else field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
