"""The Ray cluster that a job is handed to; Ray itself is an optional package."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from wsi_ncmi.core.errors import InputError, JobStoppedError
from wsi_ncmi.core.extras import require
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo
from wsi_ncmi.extraction.execution.plan import Node, plan_slots
from wsi_ncmi.extraction.execution.ray_worker import describe
from wsi_ncmi.parallel import Stopped

_LOG = logging.getLogger(__name__)
_WAIT_S = 30.0
_PING_S = 10.0


class RayCluster:
    """What this program asks of Ray; made by :func:`connect`.

    Args:
        ray: The module, connected.

    Attributes:
        ray: The module.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self._names: dict[str, str] = {}

    def nodes(self) -> list[Node]:
        """The nodes that are alive.

        Raises:
            JobStoppedError: The cluster's head does not answer.
        """
        try:
            listed = self.ray.nodes()
        except Exception as error:
            raise JobStoppedError(
                f"The Ray cluster does not answer any more ({type(error).__name__}); start it and the same "
                "command again, what is done is kept."
            ) from error
        nodes = []
        for node in listed:
            self._names[node["NodeID"]] = node.get("NodeManagerHostname") or node.get(
                "NodeManagerAddress", ""
            )
            if node["Alive"]:
                lent = node.get("Resources", {})
                nodes.append(Node(node["NodeID"], int(lent.get("CPU", 0)), int(lent.get("GPU", 0))))
        return nodes

    def name_of(self, identity: str) -> str:
        """The host name of a node, for messages on the terminal; it is written to no file."""
        return self._names.get(identity, identity)

    def on_node(self, identity: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Runs a function on a node, whenever it comes to it; nobody waits for its end."""
        where = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(identity, soft=False)
        remote = self.ray.remote(function).options(num_cpus=0, scheduling_strategy=where, max_retries=0)
        remote.remote(*arguments)

    def describe(self, encoder: EncoderConfig) -> EncoderInfo:
        """What the encoder is where it will run; no encoder is loaded in this process.

        Raises:
            InputError: The cluster has no room for a worker, or the encoder can't be loaded there.
        """
        slots = plan_slots(self.nodes(), encoder)
        if not slots:
            raise InputError(
                "No node of the Ray cluster lends a core or a GPU; start nodes with ray start --num-cpus N, "
                "or use --engine local."
            )
        slot = slots[0]
        call = self.ray.remote(describe).options(num_cpus=slot.cores, num_gpus=int(slot.gpu)).remote(encoder)
        while not self.ray.wait([call], timeout=_WAIT_S)[0]:
            _LOG.info("Waiting for a %s of the cluster.", "GPU" if slot.gpu else "core")
        try:
            *records, last = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[-300:]
            raise InputError(f"The encoder can't be loaded on the cluster: {reason}") from error
        for message in records:
            logging.getLogger(message.record.name).handle(message.record)
        if isinstance(last, Stopped):
            raise last.error
        return last.info  # type: ignore[no-any-return]  # Ray's results are untyped


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[RayCluster]:
    """Connects to a running cluster; none is ever started here, for that would open ports to the network.

    Args:
        address: ``HOST:PORT`` of its head; None takes ``RAY_ADDRESS``, else the one of this machine.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    require(("ray",), "--engine ray")
    import ray
    import ray.util.scheduling_strategies

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    if ray.is_initialized():  # by the caller's own script, whose connection stays
        yield RayCluster(ray)
        return
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _ping(where)
        ray.init(address=where, namespace="wsi-ncmi", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray's errors of connecting share no class
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"There is no Ray cluster to be reached at {where!r} ({type(error).__name__}: {reason}); start "
            "one with ray start --head, name it with --ray-address HOST:PORT, or use --engine local."
        ) from error
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()


def _ping(address: str) -> None:
    """Tries the port of a cluster's head, for Ray itself waits a minute for one that is not there.

    Raises:
        OSError: Nobody answers.
    """
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PING_S).close()
