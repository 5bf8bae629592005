"""Configuration written out, and the help text of its keys."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter


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


def to_yaml(config: Any, *, changed_only: bool = False) -> str:
    """A configuration as YAML.

    Args:
        config: A config object.
        changed_only: Leave out what is at its default; else every default is written out.
    """
    content = TypeAdapter(type(config)).dump_python(config, mode="json")
    if changed_only:
        content = _changed(config, type(config)(), content)
    return _yaml(content) if content else "# Everything is at its default.\n"


def commented_yaml(config: Any) -> str:
    """A configuration as YAML, a comment above each key; keys at their defaults are comments themselves."""
    content = TypeAdapter(type(config)).dump_python(config, mode="json")
    return "\n".join(_lines(config, type(config)(), content, "")) + "\n"


def _lines(config: Any, default: Any, content: dict[str, Any], indent: str) -> Iterator[str]:
    texts = field_help(type(config))
    for field in dataclasses.fields(config):
        name, value, usual = field.name, getattr(config, field.name), getattr(default, field.name)
        mark = "#" if value == usual and "#" not in indent else ""
        for line in textwrap.wrap(texts.get(name, "").replace("``", ""), 105 - len(indent)):
            yield f"{indent}# {line}"
        if dataclasses.is_dataclass(value) and type(value) is type(usual) and not hasattr(value, "summary"):
            yield f"{indent}{mark}{name}:"
            yield from _lines(value, usual, content[name], f"{indent}{mark}  ")
        else:
            part = content[name] if value == usual else _changed(value, usual, content[name])
            yield from (f"{indent}{mark}{line}" for line in _yaml({name: part}).splitlines())


def _changed(value: Any, default: Any, content: Any) -> Any:
    """The part of a content that differs from the default, as somebody would write it."""
    if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        return [_changed(each, None, item) for each, item in zip(value, content, strict=True)]
    if not dataclasses.is_dataclass(value):
        return content
    named = type(value) is not type(default)  # a loss or model, which its name has chosen
    made: Any = type(value)
    base: Any = made() if named else default
    found = {"name": content["name"]} if named else {}
    for field in dataclasses.fields(value):
        own, usual = getattr(value, field.name), getattr(base, field.name)
        if own != usual:
            found[field.name] = _changed(own, usual, content[field.name])
    return found["name"] if named and len(found) == 1 else found


def _yaml(content: Any) -> str:
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
