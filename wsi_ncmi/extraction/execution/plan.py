"""Division of machines: processes and threads of one machine, worker slots of a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.staging import prepare_stage

DESCRIPTOR = "descriptor"
"""The encoder that is no network."""
_MAX_ENCODER_THREADS = 8  # of one process on the CPU
_ENCODER_THREAD_BYTES = 1 << 30
_GPU_READERS = 2
# What a process takes before its first tile: the interpreter with its libraries, and the masks of a slide.
_PROCESS_BYTES = 600 << 20
# Of what may be used; the rest is the system's, the page cache's and the fragmentation's.
_USABLE_SHARE = 0.8


def can_use_gpu(encoder: EncoderConfig) -> bool:
    """Whether an encoder would run on a GPU where there is one."""
    return (
        encoder.device != "cpu" and encoder.name != DESCRIPTOR and encoder.backend not in ("onnx", "openvino")
    )


@dataclass(frozen=True)
class PipelineConfig:
    """Threads and memory of one pipeline; none of it changes the numbers of a feature file.

    Attributes:
        batch_size: Tiles of a batch where the encoder does not say itself.
        encoder_threads: Threads that encode, each on one core (CPU); one is enough for a CUDA device.
        readers: Slides read at a time.
        decode_threads: Threads that decode the tiles of one slide.
        buffer_bytes: Decoded pixels on their way to the encoder, all slides together.
        stage: Folder to which slides are copied ahead of the readers; None = they are read where they are.
        stage_bytes: Copies in it at a time.
        slide_bytes: Masks and features of slides that are not published yet, all together; one slide is
            always let in.
    """

    batch_size: int = 16
    encoder_threads: int = 1
    readers: int = 1
    decode_threads: int = 1
    buffer_bytes: int = 256 << 20
    slide_bytes: int = 2 << 30
    stage: Path | None = None
    stage_bytes: int = 0


@dataclass(frozen=True)
class ResourcePlan:
    """The division of one machine.

    Attributes:
        processes: Worker processes.
        threads: Compute threads of one encoding thread.
        pipeline: Threads and memory of each process.
    """

    processes: int
    threads: int
    pipeline: PipelineConfig


def plan_resources(
    encoder: EncoderConfig,
    *,
    workers: int | None,
    slides: int,
    cores: int,
    memory: int,
    gpus: int,
    buffer_bytes: int,
) -> ResourcePlan:
    """Divides the machine.

    On the CPU a network runs in several threads that share its weights, each of which computes on one core:
    one computation on two cores is not twice as fast (squeezenet1_1 140 tiles/s, 87 on one core), for a layer
    is split and waited for only so well. The descriptor is Python between small array operations: it
    gets processes. A GPU gets one process. Where memory is short there are fewer processes than cores, and
    pixels and features wait in smaller buffers.

    Args:
        encoder: The encoder.
        workers: Processes that the user wants; None decides here.
        slides: Slides of the job.
        cores: Cores that may be used.
        memory: Bytes that may be used.
        gpus: Devices to share out, 0 for the CPU.
        buffer_bytes: Decoded pixels that all processes together may hold.
    """
    usable = int(memory * _USABLE_SHARE)
    affordable = max(1, usable // _PROCESS_BYTES)
    buffer_bytes = min(buffer_bytes, usable // 8)
    if gpus:
        processes = _bounded(workers or min(gpus, affordable), slides)
        share = max(1, cores // processes)
        readers = min(_GPU_READERS, share)
        pipeline = PipelineConfig(
            batch_size=_batch_size(encoder), encoder_threads=1, readers=readers,
            decode_threads=max(1, share // readers), buffer_bytes=buffer_bytes // processes,
            slide_bytes=_slide_bytes(usable, processes),
        )  # fmt: skip
        return ResourcePlan(processes, max(1, share // 2), pipeline)
    if encoder.name == DESCRIPTOR:
        processes, encoder_threads = _bounded(workers or min(cores, affordable), slides), 1
    else:
        processes = _bounded(workers or min(-(-cores // _MAX_ENCODER_THREADS), affordable), slides)
        encoder_threads = max(1, min(cores // processes, memory // _ENCODER_THREAD_BYTES // processes))
    threads = 1
    if encoder.backend in ("compile", "openvino"):
        encoder_threads, threads = 1, encoder_threads  # they divide a computation themselves
    pipeline = PipelineConfig(
        batch_size=_batch_size(encoder), encoder_threads=encoder_threads,
        buffer_bytes=buffer_bytes // processes, slide_bytes=_slide_bytes(usable, processes),
    )  # fmt: skip
    return ResourcePlan(processes, threads, pipeline)


def with_stage(plan: ResourcePlan, stage: Path | None, gib: float | None, processes: int) -> ResourcePlan:
    """The plan of a machine on which so many processes copy slides to a stage folder first.

    Raises:
        InputError: The folder can't be made or written to.
    """
    if stage is None:
        return plan
    share = prepare_stage(stage, gib, processes)
    return replace(plan, pipeline=replace(plan.pipeline, stage=stage, stage_bytes=share))


def _slide_bytes(memory: int, processes: int) -> int:
    return min(PipelineConfig().slide_bytes, memory // 4 // processes)


def _batch_size(encoder: EncoderConfig) -> int:
    return PipelineConfig().batch_size if encoder.batch_size == "auto" else encoder.batch_size


def _bounded(processes: int, slides: int) -> int:
    return max(1, min(processes, slides))


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, or a container on one.

    Attributes:
        identity: The cluster's name for it.
        cores: Cores that it lends.
        gpus: GPUs that it lends; a MIG slice is one.
    """

    identity: str
    cores: int
    gpus: int


@dataclass(frozen=True)
class WorkerSlot:
    """Room for one worker on a node.

    Attributes:
        node: Identity of the node.
        number: Number of the worker on that node.
        cores: Cores that it gets; 0 on a node that lends fewer of them than GPUs.
        gpu: Whether it gets a GPU.
        workers_on_node: Workers on that node, this one too; they divide its memory.
    """

    node: str
    number: int
    cores: int
    gpu: bool
    workers_on_node: int


def plan_slots(
    nodes: Sequence[Node], encoder: EncoderConfig, *, workers: int | None = None
) -> tuple[WorkerSlot, ...]:
    """Divides a cluster: one worker a GPU, or as many as a node's cores suggest.

    Where any node has a GPU that the encoder can use, only GPUs get workers: what the CPU computes differs
    by rounding and would be of another identity.

    Args:
        nodes: The nodes that are alive.
        encoder: The encoder.
        workers: Most workers altogether; they are dealt over the nodes in turn. None takes all slots.

    Returns:
        The slots, the first of every node first.
    """
    on_gpu = can_use_gpu(encoder) and any(node.gpus for node in nodes)
    slots: list[WorkerSlot] = []
    for node in nodes:
        if on_gpu:
            count = node.gpus
        elif encoder.name == DESCRIPTOR:
            count = node.cores
        else:
            count = -(-node.cores // _MAX_ENCODER_THREADS)
        cores = node.cores // count if count else 0
        slots += [WorkerSlot(node.identity, number, cores, on_gpu, count) for number in range(count)]
    slots.sort(key=lambda slot: slot.number)
    return tuple(slots if workers is None else slots[:workers])
