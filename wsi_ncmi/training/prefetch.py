"""Work ahead: the next batches are read while the present one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

_T = TypeVar("_T")


def ahead(calls: Iterable[Callable[[], _T]], depth: int) -> Generator[_T, None, None]:
    """Yields the results of calls in their order, ``depth`` of them made ahead in one thread.

    One thread makes all of them one after the other, so that what they share (a cache) needs no lock as long
    as nobody else uses it before the iterator ends or is closed.

    Args:
        calls: What to call.
        depth: Calls ahead of the one that is in the consumer's hands; 0 = none, and no thread.

    Raises:
        Exception: Whatever a call raises, at its turn.
    """
    if depth == 0:
        for call in calls:
            yield call()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="bags-ahead") as pool:
        pending: deque[Future[_T]] = deque()
        try:
            for call in calls:
                pending.append(pool.submit(call))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
