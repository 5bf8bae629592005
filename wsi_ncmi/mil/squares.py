"""Bags filled up to squares with their own first instances, those of one side next to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wsi_ncmi.mil.bags import BagBatch
from wsi_ncmi.mil.buckets import MOST_ROWS

__all__ = ["Square", "make_squares"]


@dataclass(frozen=True)
class Square:
    """Some bags of a batch that fill up to the same square.

    Attributes:
        bags: Positions of the bags in the batch.
        rows: Where the instance of each place lies in the packed matrix, int64 (b, side²): the bag's
            instances in their order, then its first ones once more.
        side: Side of the square.
    """

    bags: tuple[int, ...]
    rows: Tensor
    side: int


def make_squares(batch: BagBatch) -> list[Square]:
    """Sorts the bags by the smallest square that holds each: no bag gets a place that it hasn't when alone.

    Source: TransMIL (arXiv 2106.00908), algorithm 1, "squaring of the sequence".

    Args:
        batch: The bags.

    Returns:
        Every bag once, the largest squares first, at most ``MOST_ROWS`` places in one item unless a single
        bag has more.
    """
    bags_of: dict[int, list[int]] = {}
    for bag, size in enumerate(batch.sizes):
        bags_of.setdefault(math.isqrt(size - 1) + 1, []).append(bag)
    squares = []
    for side in sorted(bags_of, reverse=True):
        most = max(MOST_ROWS // side**2, 1)
        for begin in range(0, len(bags_of[side]), most):
            bags = bags_of[side][begin : begin + most]
            squares.append(Square(tuple(bags), _rows(bags, side, batch), side))
    return squares


def _rows(bags: list[int], side: int, batch: BagBatch) -> Tensor:
    chosen = torch.tensor(bags, device=batch.lengths.device)
    first, lengths = batch.offsets[chosen].unsqueeze(1), batch.lengths[chosen].unsqueeze(1)
    return first + torch.arange(side * side, device=chosen.device) % lengths
