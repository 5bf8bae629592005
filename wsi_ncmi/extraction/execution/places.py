"""Where the workers of a cluster go: one a GPU, or as many as a node's cores suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.layout import LANES, NUMPY, can_use_gpu

__all__ = ["Node", "Place", "plan_places"]


@dataclass(frozen=True)
class Node:
    """One machine of the cluster, or a container on one.

    Attributes:
        identity: The cluster's name for it.
        cores: Cores that it lends.
        gpus: GPUs that it lends; a MIG slice is one.
    """

    identity: str
    cores: int
    gpus: int


@dataclass(frozen=True)
class Place:
    """Room for one worker.

    Attributes:
        node: Identity of the node.
        slot: Number of the worker on that node.
        cores: Cores that it gets; 0 on a node that lends fewer of them than GPUs.
        gpu: Whether it gets a GPU.
        mates: Workers on that node, this one too; they divide its memory.
    """

    node: str
    slot: int
    cores: int
    gpu: bool
    mates: int


def plan_places(
    nodes: Sequence[Node], options: EncoderConfig, *, workers: int | None = None
) -> tuple[Place, ...]:
    """Divides a cluster.

    Where any node has a GPU that the encoder can use, only GPUs get workers: what the CPU computes differs
    by rounding and would be of another identity.

    Args:
        nodes: The nodes that are alive.
        options: The encoder.
        workers: Most workers altogether; they are dealt over the nodes in turn. None takes all places.

    Returns:
        The places, the first of every node first.
    """
    on_gpu = can_use_gpu(options) and any(node.gpus for node in nodes)
    places: list[Place] = []
    for node in nodes:
        if on_gpu:
            mates = node.gpus
        elif options.name == NUMPY:
            mates = node.cores
        else:
            mates = -(-node.cores // LANES)
        cores = node.cores // mates if mates else 0
        places += [Place(node.identity, slot, cores, on_gpu, mates) for slot in range(mates)]
    places.sort(key=lambda place: place.slot)
    return tuple(places if workers is None else places[:workers])
