"""Out of memory: how it is told from other faults, and the largest batch that stays clear of it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["find_batch_size", "is_out_of_memory"]

_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory",
          "failed to allocate")  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU (any allocator's words) or on a CUDA device."""
    # torch.cuda.OutOfMemoryError is a RuntimeError that says "out of memory"; so no import is needed.
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def find_batch_size(run: Callable[[int], object], *, largest: int, smallest: int = 1) -> int:
    """Doubles the batch until memory runs out.

    Memory decides, never the clock: the same device gives the same answer every time.

    Args:
        run: Computes a batch of that many tiles and lets its memory go.
        largest: No batch is larger.
        smallest: The first one tried.

    Returns:
        The largest size that ran, halved once where a larger one did not: what runs just so, fails later when
        memory is fragmented.

    Raises:
        MemoryError: Not even ``smallest`` runs.
    """
    size = smallest
    found = 0
    while size <= largest:
        try:
            run(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not found:
                raise MemoryError(f"not enough memory for a batch of {size} tiles") from error
            return max(smallest, found // 2)
        found, size = size, size * 2
    return found
