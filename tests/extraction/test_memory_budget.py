"""Bytes are bounded, requests wait their turn, and nothing waits for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from wsi_ncmi.extraction.pipeline.reading import ClosedError, MemoryBudget


class Waiting:
    """Counts who waits."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.left = threading.Event()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.entered.set()
        try:
            yield
        finally:
            self.left.set()


def test_a_request_waits_until_there_is_room_and_says_so() -> None:
    budget, waiting = MemoryBudget(100), Waiting()
    budget.acquire(60, waiting)
    assert not waiting.entered.is_set()
    thread = threading.Thread(target=budget.acquire, args=(60, waiting))
    thread.start()
    assert waiting.entered.wait(10)
    assert budget.used == 60
    budget.release(60)
    thread.join(10)
    assert budget.used == 60
    assert waiting.left.is_set()


def test_more_than_there_is_passes_alone() -> None:
    budget, waiting = MemoryBudget(10), Waiting()
    budget.acquire(50, waiting)
    assert budget.used == 50
    assert not waiting.entered.is_set()


def test_closing_wakes_who_waits_and_refuses_all_others() -> None:
    budget, waiting, refused = MemoryBudget(10), Waiting(), []

    def ask() -> None:
        try:
            budget.acquire(5, waiting)
        except ClosedError:
            refused.append(True)

    budget.acquire(10, waiting)
    thread = threading.Thread(target=ask)
    thread.start()
    waiting.entered.wait(10)
    budget.close()
    thread.join(10)
    assert refused == [True]
    with pytest.raises(ClosedError):
        budget.acquire(1, waiting)


def test_many_threads_never_pass_the_limit() -> None:
    budget, most, lock = MemoryBudget(7), [0], threading.Lock()

    def work(size: int) -> None:
        for _ in range(200):
            budget.acquire(size, Waiting())
            with lock:
                most[0] = max(most[0], budget.used)
            budget.release(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (1, 2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.used == 0
    assert 0 < most[0] <= 7
