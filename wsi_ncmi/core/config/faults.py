"""Faults of a configuration, each one sentence: keys, value, where they were written, nearest valid name."""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from wsi_ncmi.core.config.classes import Named
from wsi_ncmi.core.config.types import (
    ConfigPath,
    chosen,
    config_path,
    find_hint,
    hint_at,
    is_config,
    is_path,
    value_at,
)  # fmt: skip
from wsi_ncmi.core.errors import InputError

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


def contradiction(message: str, *keys: str | ConfigPath) -> PydanticCustomError:
    """A fault of several keys together, for a validator to raise.

    Args:
        message: What is wrong and what helps.
        keys: The keys below the validated config, dotted; each is named with the place where it was written.
    """
    paths = [config_path(key) if isinstance(key, str) else key for key in keys]
    return _faulty(paths, f": {message.rstrip('.')}.")


def within(
    error: ValidationError, cls: Any, content: Any, place: Callable[[ConfigPath], ConfigPath]
) -> Exception:
    """A fault of content that a validator has validated itself, for it to raise.

    Args:
        error: What pydantic found.
        cls: Config class of the content.
        content: What was validated.
        place: Path in the content → path below the validated config.
    """
    paths, text = fault_of(error, cls, content)
    return _faulty([place(path) for path in paths], text)


def _faulty(paths: Sequence[ConfigPath], text: str) -> PydanticCustomError:
    named = " and ".join(repr(dotted(path)) for path in paths)
    return PydanticCustomError("fault", "{named}{text}", {"named": named, "text": text, "paths": paths})


def fault_of(error: ValidationError, cls: Any, content: Any) -> tuple[Sequence[ConfigPath], str]:
    """The keys that the first fault is about, and the rest of a sentence that begins with them."""
    found = error.errors()
    # A list whose only item is wrong is "too short" as well, which says nothing.
    faults = [each for each in found if each["type"] != "too_short"] or found
    fault = faults[0]
    path, tags = _real_path(fault["loc"], content)
    # A value of several kinds has a fault of each.
    same = [each for each in faults if _real_path(each["loc"], content)[0] == path]
    count = len(faults) - len(same)
    more = f" ({count} more fault{'s' if count > 1 else ''})" if count else ""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "fault":
        return [(*path, *below) for below in context["paths"]], f"{context['text']}{more}"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        owner, valid = _keys_at(cls, path[:-1], content)
        of = f"{owner} has no setting" if tags and owner else "there is no key"
        name = str(path[-1])
        below = _keys_below(cls, name) if len(path) == 1 and is_config(cls) else []
        hint = "it has none." if valid == ["name"] else nearest(name, below or valid)
        return [path], f": {of} {path[-1]!r}; {hint}{more}"
    if kind == "union_tag_invalid":
        names = [name.strip(" '") for name in str(context["expected_tags"]).split(", ")]
        choice = find_hint(hint_at(cls, path, content)[0], lambda item: isinstance(item, Named))
        what = choice.what if choice is not None else "choice"
        path = (*path, "name") if isinstance(value_at(content, path), Mapping) else path
        hint = nearest(str(context["tag"]), names)
        return [path], f": there is no {what} named {context['tag']!r}; {hint}{more}"
    named = [path] if path else []
    if kind == "missing":
        return named, f" is missing.{more}"
    if kind == "value_error":
        message = str(context.get("error", fault["msg"]))
        return named, f": {message.rstrip('.')}{'' if message.endswith('?') else '.'}{more}"
    limits = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in context.items()}
    message = fault["msg"][0].lower() + fault["msg"][1:]
    if kind in _MESSAGES:
        message = _MESSAGES[kind].format(**limits)
    if kind == "literal_error":
        expected = [name.strip(" '") for name in re.split(r", | or ", str(context["expected"]))]
        message = f"it is one of {', '.join(expected)}"
        close = difflib.get_close_matches(str(fault["input"]), expected, n=1, cutoff=_CLOSE)
        message += f" (did you mean {close[0]!r}?)" if close else ""
    elif words := [each for each in same if each["type"] == "literal_error"]:
        message += f", or {words[0]['ctx']['expected'].replace(chr(39), '')}"
    return named, f" is wrong: {message}, got {fault['input']!r}.{more}"


def nearest(name: str, valid: Sequence[str]) -> str:
    """``did you mean 'x'?`` where a valid name is close to the wrong one, else the list of valid names."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=_CLOSE)
    close = close or [key for key in valid if key.endswith(f".{name}")][:1]
    return f"did you mean {close[0]!r}?" if close else f"valid are {', '.join(valid)}."


def check_texts(cls: Any, content: Any, where: Callable[[ConfigPath], str]) -> None:
    """Refuses texts that no file can be named with, and empty paths, which would be the working directory."""

    def walk(node: Any, path: ConfigPath) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                walk(str(key), (*path, key))
                walk(value, (*path, key))
        elif isinstance(node, list | tuple):
            for number, value in enumerate(node):
                walk(value, (*path, number))
        elif isinstance(node, str) and (
            problem := _problem_of_text(node, lambda: is_path(cls, path, content))
        ):
            raise InputError(f"{dotted(path)!r} ({where(path)}) is wrong: {problem}, got {node!r}.")

    walk(content, ())


def _problem_of_text(text: str, names_a_path: Callable[[], bool]) -> str:
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        return "half a character stands in it"
    if b"\0" in encoded:
        return "a zero byte stands in it"
    return "it needs a name; leave the key out for none" if not text and names_a_path() else ""


def dotted(path: ConfigPath) -> str:
    """The key as it is written: parts joined by dots."""
    return ".".join(map(str, path))


def is_written(content: Any, path: ConfigPath) -> bool:
    """Whether there is something at a path: a value, or a bare text that stands for it."""
    for part in path:
        if isinstance(content, str) or dataclasses.is_dataclass(content):
            return True
        content = value_at(content, (part,))
    return content is not None or not path


def _real_path(location: Sequence[str | int], content: Any) -> tuple[ConfigPath, bool]:
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


def _keys_at(cls: Any, path: ConfigPath, content: Any) -> tuple[str, list[str]]:
    """The name of the config object at a path (empty where it isn't a named one) and its keys."""
    hint, node = hint_at(cls, path, content)
    choice, config = chosen(hint, node)
    owner = "" if choice is None else f"the {choice.what} {choice.complete(node)['name']!r}"
    return owner, [field.name for field in dataclasses.fields(config)]


def _keys_below(cls: Any, name: str) -> list[str]:
    """Dotted keys of that last part in the config classes of a class's fields."""
    hints = get_type_hints(cls, include_extras=True)
    configs = {key: find_hint(hint, is_config) for key, hint in hints.items()}
    return [
        f"{key}.{name}"
        for key, config in configs.items()
        if config and name in {field.name for field in dataclasses.fields(config)}
    ]
