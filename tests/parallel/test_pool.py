"""The supervisor: order of items, suspects, timeouts, bad starts, messages, and no process left behind."""

from __future__ import annotations

from wsi_ncmi.parallel.pool import ItemQueue


def test_an_item_that_was_put_back_comes_next() -> None:
    items = ItemQueue(3)
    assert items.take() == 0
    assert items.take() == 1
    items.put_back(0)
    assert [items.take(), items.take(), items.take()] == [0, 2, None]
