"""Bags in memory, ready to be packed, and read ahead of their use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import BagBatch

EVALUATION_ROWS = 16_384
"""Tiles that are embedded at a time outside training: enough to be efficient, little memory."""


class BagCache:
    """Gives packed batches of a source's bags and keeps what it has read.

    When all bags fit the budget as float32 they are kept so (the conversion is paid once); else they are kept
    as float16 while the budget lasts, and the rest is read again at each use. What came first stays: an epoch
    visits every bag once in random order, where replacing the oldest would throw each bag away just before
    its turn.

    Args:
        source: Where bags are read.
        budget_bytes: Most bytes of bags in memory: those kept, and where they can't all be kept, those of the
            batches in work too (:meth:`reserve`).

    Attributes:
        with_coordinates: Whether batches hold the tiles' coordinates, for the models that need them.
    """

    def __init__(self, source: BagSource, budget_bytes: int) -> None:
        self.source = source
        self._lengths = dict(zip(source.slide_ids, np.asarray(source.lengths).tolist(), strict=True))
        total = sum(self._lengths.values()) * source.width
        self._dtype = torch.float32 if 4 * total <= budget_bytes else torch.float16
        self._left = budget_bytes
        self._reserved = 0
        self._arena: Tensor | None = None
        self._arena_used = 0
        self._kept: dict[str, Tensor] = {}
        self._places: dict[str, Tensor | None] = {}
        self.with_coordinates = False

    def holds(self, slide_ids: Sequence[str]) -> bool:
        """Whether these bags have been read and kept, so that none of them is read again."""
        return all(slide_id in self._kept for slide_id in slide_ids)

    def reserve(self, tiles: int, batches: int) -> None:
        """Leaves room in the budget for batches in work, where not all bags can be kept.

        Each takes its bags as they are read and packed in float32; evaluation takes one at a time of
        ``EVALUATION_ROWS`` tiles (or of one longer bag). A second call asks for what exceeds the first one's.

        Args:
            tiles: Tiles of the largest batch of a training.
            batches: Batches in work at a time: the one that is computed, and those read ahead.
        """
        if self._dtype is torch.float32:
            return
        longest = max(self._lengths.values(), default=0)
        evaluated = max(EVALUATION_ROWS, longest)
        wanted = 6 * self.source.width * max(tiles * batches, evaluated)
        self._left = max(0, self._left - max(0, wanted - self._reserved))
        self._reserved = max(self._reserved, wanted)

    @property
    def bytes_kept(self) -> int:
        """Bytes of the bags in memory."""
        return sum(bag.nbytes for bag in self._kept.values())

    def lengths(self, slide_ids: Sequence[str]) -> NDArray[np.int64]:
        """Tiles of each slide, int64.

        Raises:
            InputError: A slide isn't in the source or has no tiles.
        """
        for slide_id in slide_ids:
            if not self._lengths.get(slide_id):
                what = "no tiles" if slide_id in self._lengths else "no features"
                raise InputError(
                    f"Slide {slide_id!r} has {what} in {self.source.path}; "
                    "leave it out of the splits or extract it."
                )
        return np.array([self._lengths[slide_id] for slide_id in slide_ids], dtype=np.int64)

    def bag(self, slide_id: str) -> Tensor:
        """Embeddings of a slide, (N, D), in the dtype in which they are kept."""
        bag = self._kept.get(slide_id)
        if bag is None:
            bag = torch.from_numpy(self.source.load(slide_id)).to(self._dtype)
            if bag.nbytes <= self._left:
                bag = self._placed(bag)
                self._kept[slide_id] = bag
                self._left -= bag.nbytes
        return bag

    def _coordinates(self, slide_id: str) -> Tensor | None:
        """Coordinates of a slide's tiles, float32 (N, 2), kept whatever the budget: 8 bytes a tile."""
        if slide_id not in self._places:
            found = self.source.coordinates(slide_id)
            self._places[slide_id] = None if found is None else torch.from_numpy(found.astype(np.float32))
        return self._places[slide_id]

    def _placed(self, bag: Tensor) -> Tensor:
        """A bag to keep; where not all are kept, in one piece of memory.

        Between bags that come and go, those that stay would leave gaps that nothing else fits into. Pages of
        the piece that no bag has been written to take no memory.
        """
        if self._dtype is torch.float32:
            return bag
        if self._arena is None:
            self._arena = torch.empty(self._left // bag.element_size(), dtype=bag.dtype)
        start = self._arena_used
        self._arena_used += bag.numel()
        return self._arena[start : self._arena_used].view_as(bag).copy_(bag)

    def pack(
        self, slide_ids: Sequence[str], rows: Sequence[NDArray[np.int64] | None] | None = None
    ) -> BagBatch:
        """Packs slides into one batch.

        Args:
            slide_ids: The slides.
            rows: For each slide the tiles to take, or ``None`` for the whole bag.

        Returns:
            The batch with float32 features, on the CPU.
        """
        bags = [self.bag(slide_id) for slide_id in slide_ids]
        places = [self._coordinates(slide_id) for slide_id in slide_ids] if self.with_coordinates else []
        if rows is not None:
            kept = [slice(None) if keep is None else torch.from_numpy(keep) for keep in rows]
            bags = [bag[keep] for bag, keep in zip(bags, kept, strict=True)]
            places = [None if of is None else of[keep] for of, keep in zip(places, kept, strict=False)]
        batch = BagBatch.pack(bags, places)
        return batch if self._dtype is torch.float32 else batch.to("cpu", torch.float32)

    def statistics(self, slide_ids: Sequence[str], *, of_means: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each feature over these slides, float32 (D,) each.

        Args:
            slide_ids: The slides.
            of_means: Over the slides' mean instances, in place of all instances.
        """
        count = 0
        total = torch.zeros(self.source.width, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for slide_id in slide_ids:
            bag = self.bag(slide_id).double()
            bag = bag.mean(dim=0, keepdim=True) if of_means else bag
            count += len(bag)
            total += bag.sum(dim=0)
            squares += bag.square().sum(dim=0)
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0.0)
        # What is left of a constant feature is rounding, not variation.
        variance[variance <= 1e-10 * mean.square()] = 0.0
        return mean.float(), variance.sqrt().float()

    def whole_batches(self, slide_ids: Sequence[str]) -> Iterator[BagBatch]:
        """Packs slides in their order into batches of about ``EVALUATION_ROWS`` tiles, whole bags."""
        pending: list[str] = []
        rows = 0
        for slide_id, length in zip(slide_ids, self.lengths(slide_ids).tolist(), strict=True):
            if pending and rows + length > EVALUATION_ROWS:
                yield self.pack(pending)
                pending, rows = [], 0
            pending.append(slide_id)
            rows += length
        if pending:
            yield self.pack(pending)


_T = TypeVar("_T")


def prefetch(calls: Iterable[Callable[[], _T]], depth: int) -> Generator[_T, None, None]:
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
