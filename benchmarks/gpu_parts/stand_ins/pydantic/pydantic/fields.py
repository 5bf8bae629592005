"""The class of a field's description."""

from dataclasses import Field as FieldInfo

__all__ = ["FieldInfo"]
