"""Checks of what Python users pass: tensors, arrays and whole numbers."""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def whole_number(value: Any, what: str, least: int) -> int:
    """The value as an int.

    Args:
        value: An int of Python or numpy.
        what: What it is, to begin the sentence with.
        least: Smallest one that will do.

    Raises:
        InputError: It is none, or smaller.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise InputError(f"{what} is a whole number of at least {least}, got {described(value)}.")
    return number


def whole_numbers(value: Any, what: str, wanted: str) -> Tensor:
    """The value as a tensor of whole numbers, one dimension or none.

    Args:
        value: Tensor or array, an int, or a sequence of ints: of Python, numpy or torch.
        what: What they are, to begin the sentence with.
        wanted: What they should be, with shape.

    Raises:
        InputError: They are none.
    """
    import torch

    if isinstance(value, list | tuple | int) and not isinstance(value, bool):
        # Others than numbers, or larger than 64 bits hold.
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
            numbers = value if isinstance(value, int) else [operator.index(each) for each in value]
            value = torch.tensor(numbers, dtype=torch.int64)
    tensor = as_tensor(value, what, wanted)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"{what} must be {wanted}, got {described(tensor)}.")
    return tensor


def as_tensor(value: Any, what: str, wanted: str) -> Tensor:
    """The value as a tensor; numpy arrays share their memory where they may be written to.

    Args:
        value: Tensor or array.
        what: What it is, to begin the sentence with.
        wanted: What it should be, with shape.

    Raises:
        InputError: It is neither, or an array that holds no numbers.
    """
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        # A memory map of a feature file is read-only, which torch warns of.
        array = np.asarray(value)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    raise InputError(f"{what} must be {wanted}, as a tensor or numpy array, got {described(value)}.")


def described(value: Any) -> str:
    """What a value is, in few words: a short text as it is, an array by its shape and type, else its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"shape {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}…"
    return f"an object of type {type(value).__name__}"
