"""Configuration: one validated class a stage, read from YAML, flags and ``--set``; a fault is one sentence.

A stage declares each of its settings once, as a field of its config class. The YAML key, the flag and the
Python argument are that field, and its help text is the field's entry in the class's docstring.
"""

import copy
import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform, get_args, get_origin, get_type_hints

import pydantic.dataclasses
import yaml
from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from wsi_ncmi.core.errors import InputError

_T = TypeVar("_T")
_Path = tuple[str | int, ...]
_CLOSE = 0.75  # similarity from which a name is a likely slip of another
# In place of pydantic's own words, which speak of Python.
_MESSAGES = {
    "dataclass_type": "it takes keys of its own",
    "dict_type": "it takes keys of its own",
    "model_attributes_type": "it is a name, or a mapping with a name",
    "tuple_type": "it is a list",
    "too_short": "it needs at least {min_length} item(s)",
    "int_type": "it is a whole number",
    "int_parsing": "it is a whole number",
    "int_from_float": "it is a whole number",
    "float_type": "it is a number",
    "float_parsing": "it is a number",
    "bool_type": "it is true or false",
    "bool_parsing": "it is true or false",
    "greater_than": "it is greater than {gt}",
    "greater_than_equal": "it is at least {ge}",
    "less_than": "it is less than {lt}",
    "less_than_equal": "it is at most {le}",
}


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


def config_from(cls: type[_T], values: Mapping[str, Any], where: str) -> _T:
    """Makes a config object from a mapping that somebody else wrote.

    Args:
        cls: Config class, or a type with :class:`Named`.
        values: Nested keys and values.
        where: Where they are from, for the message.

    Raises:
        InputError: A key or value is wrong.
    """
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise InputError(explain(error, cls, values, lambda _: where)) from error


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
    origins: dict[_Path, str] = {}
    if file is not None:
        content, origins = _parse(file)
    single = dict(one_of or {})
    for key, many in single.items():
        if key in content and many not in content:
            content[many] = [content.pop(key)]
            origins.update({(many, 0, *path[1:]): text for path, text in origins.items() if path[0] == key})
    for key, value in (flags or {}).items():
        if value is not None:
            name = (flag_names or {}).get(key, "--" + key.rpartition(".")[2].replace("_", "-"))
            replaced = _set(content, key.split("."), value, name)
            written = name if isinstance(value, bool) else f"{name} {_short(value)}"
            _written_at(origins, replaced, written)
    for override in overrides:
        _apply(cls, content, origins, override, single)
    try:
        return TypeAdapter(cls).validate_python(content)
    except ValidationError as error:
        fallback = "the configuration" if file is None else file.name
        raise InputError(
            explain(error, cls, content, lambda path: _origin(origins, path, fallback))
        ) from error


def explain(
    error: ValidationError,
    cls: Any,
    content: Any,
    where: Callable[[_Path], str] = lambda _: "the configuration",
) -> str:
    """Says in one sentence what the first fault is: key, value, where it was written, nearest valid name.

    Args:
        error: What pydantic found.
        cls: Config class that was validated.
        content: What was validated.
        where: Path of a key → where it was written.
    """
    found = error.errors()
    # A list whose only item is wrong is "too short" as well, which says nothing.
    faults = [each for each in found if each["type"] != "too_short"] or found
    fault = faults[0]
    path, tags = _real_path(fault["loc"], content)
    key = ".".join(map(str, path))
    count = len(faults) - 1
    more = f" ({count} more fault{'s' if count > 1 else ''})" if count else ""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        owner, valid = _keys_at(cls, path[:-1], content)
        of = f"{owner} has no setting" if tags and owner else "there is no key"
        name = str(path[-1])
        below = _keys_below(cls, name) if len(path) == 1 and _is_config(cls) else []
        hint = "it has none." if valid == ["name"] else nearest(name, below or valid)
        return f"{key!r} ({where(path)}): {of} {path[-1]!r}; {hint}{more}"
    if kind == "union_tag_invalid":
        names = [name.strip(" '") for name in str(context["expected_tags"]).split(", ")]
        choice = _find(_hint_at(cls, path, content)[0], lambda item: isinstance(item, Named))
        what = choice.what if choice is not None else "choice"
        path = (*path, "name") if isinstance(_value_at(content, path), Mapping) else path
        return (
            f"{'.'.join(map(str, path))!r} ({where(path)}): there is no {what} named {context['tag']!r}; "
            f"{nearest(str(context['tag']), names)}{more}"
        )
    if kind == "missing":
        return f"{key!r} is missing ({where(path[:-1])}).{more}"
    if kind == "value_error":
        message = str(context.get("error", fault["msg"]))
        return f"{key + ': ' if key else ''}{message.rstrip('.')} ({where(path)}).{more}"
    limits = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in context.items()}
    message = fault["msg"][0].lower() + fault["msg"][1:]
    if kind in _MESSAGES:
        message = _MESSAGES[kind].format(**limits)
    if kind == "literal_error":
        expected = [name.strip(" '") for name in re.split(r", | or ", str(context["expected"]))]
        message = f"it is one of {', '.join(expected)}"
        close = difflib.get_close_matches(str(fault["input"]), expected, n=1, cutoff=_CLOSE)
        message += f" (did you mean {close[0]!r}?)" if close else ""
    return f"{key!r} ({where(path)}) is wrong: {message}, got {fault['input']!r}.{more}"


def nearest(name: str, valid: Sequence[str]) -> str:
    """``did you mean 'x'?`` where a valid name is close to the wrong one, else the list of valid names."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=_CLOSE)
    close = close or [key for key in valid if key.endswith(f".{name}")][:1]
    return f"did you mean {close[0]!r}?" if close else f"valid are {', '.join(valid)}."


def field_help(cls: type[Any]) -> dict[str, str]:
    """Field → help text, from the ``Attributes:`` sections of a config class and its bases."""
    found: dict[str, str] = {}
    for each in reversed(inspect.getmro(cls)):
        text = inspect.cleandoc(each.__dict__.get("__doc__") or "")
        _, _, section = text.partition("Attributes:\n")
        name = ""
        for line in section.splitlines():
            entry = re.match(r" {4}(\w+): (.*)", line)
            if entry:
                name, found[entry[1]] = entry[1], entry[2].strip()
            elif name and line.startswith("        "):
                found[name] += f" {line.strip()}"
            elif line.strip():
                break
    return found


def to_yaml(config: Any) -> str:
    """The whole configuration as YAML, every default written out."""
    content = TypeAdapter(type(config)).dump_python(config, mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _parse(file: Path) -> tuple[dict[str, Any], dict[_Path, str]]:
    """The content of a YAML file, and the line of each key."""
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The configuration {file} can't be read: {reason}.") from error
    if content is None or root is None:
        return {}, {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"The configuration {file} must be a mapping of keys to values.")
    origins: dict[_Path, str] = {}
    parents: list[yaml.Node] = []

    def walk(node: yaml.Node, path: _Path) -> None:
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
    cls: Any, content: dict[str, Any], origins: dict[_Path, str], override: str, single: Mapping[str, str]
) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise InputError(f"--set takes a.b=value, got {override!r}.")
    try:
        value = yaml.safe_load(text) if text.strip() else None
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
    replaced = _set(content, parts, value, f"--set {override}")
    _written_at(origins, replaced, f"--set {override}")


def _written(item: Any) -> Any:
    """An item as somebody would write it: its name, and settings that aren't at their default."""
    if not dataclasses.is_dataclass(item):
        return item
    settings = TypeAdapter(type(item)).dump_python(item, mode="json", exclude_defaults=True)
    return {"name": item.name, **settings} if hasattr(item, "name") else settings


def _set(content: dict[str, Any], parts: Sequence[str], value: Any, origin: str) -> _Path:
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
            node[index] = {"name": node[index]}
        elif isinstance(node[index], tuple):
            node[index] = list(node[index])
        node[index] = copy.copy(node[index])
        node = node[index]
    return _path(".".join(parts[:replaced]))


def _path(key: str) -> _Path:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _written_at(origins: dict[_Path, str], path: _Path, text: str) -> None:
    """Notes where a value was written, in place of all that it replaces."""
    for below in [each for each in origins if each[: len(path)] == path]:
        del origins[below]
    origins[path] = text


def _origin(origins: Mapping[_Path, str], path: _Path, fallback: str) -> str:
    """The place where a key was written, or else the first key below it, or else its nearest parent."""
    if path and path not in origins:
        below = next((text for other, text in origins.items() if other[: len(path)] == path), None)
        if below is not None:
            return below
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return fallback


def _value_at(content: Any, path: _Path) -> Any:
    """The content at a path; None where a validator has made the path."""
    for part in path:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _real_path(location: Sequence[str | int], content: Any) -> tuple[_Path, bool]:
    """The path of a fault without the tags that unions put into it, and whether there were any."""
    path: list[str | int] = []
    node: Any = content
    tagged = False
    for number, part in enumerate(location):
        inside = isinstance(node, Mapping) and part in node
        inside |= isinstance(part, int) and isinstance(node, list | tuple) and part < len(node)
        last = number == len(location) - 1
        if inside:
            path.append(part)
            node = node[part]
        elif last and (
            isinstance(node, list | tuple) or (isinstance(node, Mapping) and node.get("name") != part)
        ):
            path.append(part)
        else:
            tagged = True
    return tuple(path), tagged


def _keys_at(cls: Any, path: _Path, content: Any) -> tuple[str, list[str]]:
    """The name of the config object at a path (empty where it isn't a named one) and its keys."""
    hint, node = _hint_at(cls, path, content)
    choice, config = _chosen(hint, node)
    owner = "" if choice is None else f"the {choice.what} {choice.complete(node)['name']!r}"
    return owner, [field.name for field in dataclasses.fields(config)]


def _keys_below(cls: Any, name: str) -> list[str]:
    """Dotted keys of that last part in the config classes of a class's fields."""
    hints = get_type_hints(cls, include_extras=True)
    configs = {key: _find(hint, _is_config) for key, hint in hints.items()}
    return [
        f"{key}.{name}"
        for key, config in configs.items()
        if config and name in {field.name for field in dataclasses.fields(config)}
    ]


def _hint_at(cls: Any, path: _Path, content: Any) -> tuple[Any, Any]:
    """The type of what is written at a path, and what is written there."""
    hint, node = cls, content
    for part in path:
        items = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if get_origin(items) is dict:
            hint = get_args(items)[1]
        elif not isinstance(part, int):
            _, config = _chosen(hint, node)
            hint = get_type_hints(config, include_extras=True)[part]
        node = _value_at(node, (part,))
    return hint, node


def _chosen(hint: Any, node: Any) -> tuple[Named | None, Any]:
    """The config class of a node, and what chose it by its name."""
    choice: Named | None = _find(hint, lambda item: isinstance(item, Named))
    if choice is None:
        return None, _find(hint, _is_config)
    return choice, choice.registry()[choice.complete(node)["name"]]


def _is_config(item: Any) -> bool:
    return isinstance(item, type) and dataclasses.is_dataclass(item)


def _find(hint: Any, wanted: Callable[[Any], bool]) -> Any:
    if wanted(hint):
        return hint
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        found = _find(part, wanted)
        if found is not None:
            return found
    return None


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
