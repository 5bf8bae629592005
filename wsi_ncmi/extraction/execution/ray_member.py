"""The supervisor's view of a worker that Ray runs on some node."""

from __future__ import annotations

import contextlib
from typing import Any

from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.execution.member import Member
from wsi_ncmi.extraction.execution.places import Place
from wsi_ncmi.extraction.execution.remote import Order, RemoteWorker
from wsi_ncmi.extraction.pipeline import Stopped
from wsi_ncmi.extraction.task import SlideTask

__all__ = ["RayMember"]

_ABORT_S = 9.0
# start or submit, poll, abort, and one to spare: none may wait for another.
_THREADS = 4


class RayMember(Member):
    """An actor with one outstanding call, whose end is its news.

    Args:
        ray: The module.
        number: Its place in the crew.
        place: Where it runs.
        order: What it is told.

    Attributes:
        place: Where it runs.
        news: The outstanding call: its start, then what it has to say.
    """

    def __init__(self, ray: Any, number: int, place: Place, order: Order) -> None:
        super().__init__(number)
        self._ray = ray
        self.place = place
        self._how = "its process ended"
        where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)
        self._actor = (
            ray.remote(RemoteWorker)
            .options(
                num_cpus=place.cores, num_gpus=int(place.gpu), max_concurrency=_THREADS, max_restarts=0,
                scheduling_strategy=where,
            )
            .remote()
        )  # fmt: skip
        self.news: Any = self._actor.start.remote(order)

    def receive(self) -> list[Any]:
        """``"ready"`` once, then events; ``Stopped`` where its machine can't do the job."""
        try:
            result = self._ray.get(self.news)
        except self._ray.exceptions.RayError as error:
            self._how = " ".join(str(error).split())[:200] or type(error).__name__
            raise EOFError from error
        if isinstance(result, Stopped):
            return [result]
        self.news = self._actor.poll.remote()
        return ["ready"] if isinstance(result, EncoderInfo) else result

    def end(self, *, kill: bool = False) -> str:
        """Ends the actor; when not killed it has some seconds to release what it holds."""
        if not kill:
            self.wait_for([self.begin_to_abort()])
        with contextlib.suppress(Exception):  # it may be dead, or its node gone
            self._ray.kill(self._actor, no_restart=True)
        return self._how

    def begin_to_abort(self) -> Any:
        """Asks it to give up what it has in hand; gives the call to wait for."""
        return self._actor.abort.remote()

    def wait_for(self, calls: list[Any]) -> None:
        """Waits until the calls have ended somehow, some seconds at most."""
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_ABORT_S)

    def _send(self, index: int, task: SlideTask) -> None:
        self._actor.submit.remote(index, task)
