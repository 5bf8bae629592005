"""Stands in for lazy_loader where a GPU machine lacks it."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose public names its ``.pyi`` imports."""
    places = {
        alias.asname or alias.name: (f"{package}.{node.module}" if node.module else package, alias.name)
        for node in ast.parse(Path(file).with_suffix(".pyi").read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = places[name]
        if module == package:
            return importlib.import_module(f"{package}.{own}")
        return getattr(importlib.import_module(module), own)

    return get, lambda: sorted(places), sorted(places)
