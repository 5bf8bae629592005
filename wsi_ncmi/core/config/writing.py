"""Configuration written out, and the help text of its keys."""

import inspect
import re
from typing import Any

import yaml
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


def to_yaml(config: Any) -> str:
    """The whole configuration as YAML, every default written out."""
    content = TypeAdapter(type(config)).dump_python(config, mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
