"""Workers on the nodes of a Ray cluster, which may lose processes and nodes, and win nodes, in mid-job."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from wsi_ncmi.core.errors import IdentityConflictError, WsiNcmiError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.bookkeeping import Bookkeeping
from wsi_ncmi.extraction.execution.crew import Crew
from wsi_ncmi.extraction.execution.places import Place, plan_places
from wsi_ncmi.extraction.execution.ray_cluster import RayCluster
from wsi_ncmi.extraction.execution.ray_member import RayMember
from wsi_ncmi.extraction.execution.remote import Order, release
from wsi_ncmi.extraction.task import SlideTask

__all__ = ["RayCrew"]

_LOG = logging.getLogger(__name__)
_LOOK_S = 2.0
_TELL_S = 60.0


class RayCrew(Crew[RayMember]):
    """A crew whose places are those of the nodes that are alive at the moment.

    A node on which a worker can't start, or can't go on while others can, is left out for the rest of the
    job. Slides of a node that was lost are no suspects.

    Args:
        cluster: The cluster.
        tasks: The job.
        options: The encoder.
        order: What every worker is told; its place is filled in here.
        workers: Most workers altogether; None: one in every place.
        timeout_s: Seconds that a slide may take of its own; None: for ever.
        books: Takes the rows.
    """

    def __init__(
        self,
        cluster: RayCluster,
        tasks: Sequence[SlideTask],
        options: EncoderConfig,
        order: Order,
        *,
        workers: int | None,
        timeout_s: float | None,
        books: Bookkeeping,
    ) -> None:
        super().__init__(tasks, options, timeout_s, books)
        self._cluster, self._order, self._most = cluster, order, workers
        self._numbers: dict[tuple[str, int], int] = {}
        self._by_number: dict[int, Place] = {}
        self._left_out: dict[str, WsiNcmiError] = {}
        self._looked = -_LOOK_S
        self._told = time.monotonic()
        self._now: list[int] = []

    def stop(self) -> None:
        """Lets all workers give up at the same time, then ends them."""
        ready = [worker for worker in self._workers if worker.ready]
        if ready:
            ready[0].wait_for([worker.begin_to_abort() for worker in ready])
        for worker in self._workers:
            worker.end(kill=True)
        self._workers.clear()

    def _places(self) -> Iterable[int]:
        if time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            nodes = [node for node in self._cluster.nodes() if node.identity not in self._left_out]
            self._now = [
                self._number(place) for place in plan_places(nodes, self._options, workers=self._most)
            ]
            if self._now or self._workers:
                self._told = time.monotonic()
            elif self._left_out:
                raise next(iter(self._left_out.values()))
            elif time.monotonic() - self._told > _TELL_S:
                self._told = time.monotonic()
                _LOG.warning("No node of the cluster has room for a worker; waiting for one.")
        return self._now

    def _number(self, place: Place) -> int:
        number = self._numbers.setdefault((place.node, place.slot), len(self._numbers))
        self._by_number[number] = place
        return number

    def _recruit(self, number: int) -> RayMember:
        place = self._by_number[number]
        return RayMember(self._cluster.ray, number, place, replace(self._order, place=place))

    def _listen(self, patience_s: float | None) -> Sequence[RayMember]:
        # Nodes come and go without a word: the cluster is looked at in between.
        patience = _LOOK_S if patience_s is None else min(patience_s, _LOOK_S)
        if not self._workers:
            time.sleep(patience)
            return []
        news = {worker.news: worker for worker in self._workers}
        ready, _ = self._cluster.ray.wait(list(news), num_returns=1, timeout=patience)
        if ready:  # whatever else is there by now
            ready, _ = self._cluster.ray.wait(list(news), num_returns=len(news), timeout=0)
        return [news[one] for one in ready]

    def _blames(self, worker: RayMember) -> bool:
        if worker.place.node in self._alive():
            return True
        _LOG.warning("A node of the cluster is gone; its slides are worked on elsewhere.")
        self._looked = -_LOOK_S
        return False

    def _halt(self, worker: RayMember, error: WsiNcmiError) -> None:
        if isinstance(error, IdentityConflictError):
            raise error
        name = self._cluster.name_of(worker.place.node)
        reason = str(error).rstrip(".")
        _LOG.warning("The node %s is left out of the job: %s.", name, reason)
        self._left_out[worker.place.node] = type(error)(
            f"No node of the cluster can work on the job; {name}: {reason}."
        )
        self._looked = -_LOOK_S
        for mate in [other for other in self._workers if other.place.node == worker.place.node]:
            self._lose(mate, kill=False)
            self._put_back(mate)

    def _clean_up(self, worker: RayMember) -> None:
        """On the worker's own node, which alone knows that it is gone; a lost node's claims lapse."""
        if worker.hand and worker.place.node in self._alive():
            held = [self._tasks[index] for index in worker.hand]
            self._cluster.on_node(worker.place.node, release, held, self._options.name)

    def _alive(self) -> set[str]:
        return {node.identity for node in self._cluster.nodes()}
