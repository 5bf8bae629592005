from __future__ import annotations

import threading
from functools import partial

import pytest

from wsi_ncmi.training.bags import prefetch


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_results_in_order_and_never_further_ahead_than_asked(depth):
    made: list[int] = []
    seen = []
    threads = set()

    def make(i: int) -> int:
        made.append(i)
        threads.add(threading.current_thread())
        return i * i

    for value in prefetch((partial(make, i) for i in range(10)), depth):
        seen.append(value)
        assert len(made) <= len(seen) + depth
    assert seen == [i * i for i in range(10)]
    assert made == list(range(10))
    assert len(threads) == 1
    assert (threads == {threading.current_thread()}) == (depth == 0)


def test_an_error_comes_at_its_turn_and_closing_ends_the_work():
    made = []

    def make(i: int) -> int:
        made.append(i)
        if i == 2:
            raise ValueError("third")
        return i

    results = prefetch((partial(make, i) for i in range(100)), 1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(results)
    results = prefetch((partial(make, i) for i in range(3, 100)), 2)
    next(results)
    results.close()
    assert max(made) <= 3 + 3
    assert not [t for t in threading.enumerate() if t.name.startswith("bags-ahead")]
