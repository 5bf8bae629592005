"""Fast reading of stored embeddings, the check that they are finite, and HDF5 attributes as Python values."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Read and checked in parts that stay in the processor's cache, so that checking doesn't fetch them again.
_PART = 1 << 19
_INFINITE, _MINUS_INFINITE = 0x7C00, 0xFC00


def python_value(value: Any) -> Any:
    """An attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def is_finite(values: NDArray[np.float16]) -> bool:
    """Tells whether every float16 is finite: no NaN, no infinity.

    Looks at the bits (an exponent of all ones), which is several times as fast as ``numpy.isfinite``.
    """
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint16)
    return all(_part_is_finite(flat[start : start + _PART]) for start in range(0, len(flat), _PART))


def read_rows(path: Path, offset: int, shape: tuple[int, int]) -> NDArray[np.float16]:
    """Reads a table of little-endian float16 that lies in one piece in a file.

    Args:
        path: The file.
        offset: Where it starts, bytes.
        shape: Rows and columns.

    Returns:
        float16 ``shape``, in memory of its own.

    Raises:
        OSError: The file can't be read.
        EOFError: It ends before the table does.
        ValueError: A value is NaN or infinity.
    """
    out = np.empty(shape, dtype="<f2")
    bits = out.reshape(-1).view(np.uint16)
    with path.open("rb", buffering=0) as handle:
        handle.seek(offset)
        for start in range(0, len(bits), _PART):
            part = bits[start : start + _PART]
            view = part.data.cast("B")
            while len(view):
                count = handle.readinto(view)
                if not count:
                    raise EOFError(f"{path} ends in the middle of its features")
                view = view[count:]
            if not _part_is_finite(part):
                raise ValueError(f"{path} holds NaN or infinity")
    return out


def _part_is_finite(bits: NDArray[np.uint16]) -> bool:
    # Seen as signed, what is positive and not finite lies above all else; seen as unsigned, what is negative
    # and not finite does.
    if not len(bits):
        return True
    return int(bits.view(np.int16).max()) < _INFINITE and int(bits.max()) < _MINUS_INFINITE
