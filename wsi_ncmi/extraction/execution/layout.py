"""How a machine is divided: processes, threads that encode and threads that read, and which GPU is whose."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.pipeline import PipelineConfig

__all__ = ["LANES", "NUMPY", "Layout", "can_use_gpu", "plan_layout"]

NUMPY = "descriptor"
"""The encoder that is no network."""

LANES = 8
"""Encoding threads of one process on the CPU, at most."""
_LANE_BYTES = 1 << 30
_GPU_READERS = 2
# What a process takes before its first tile: the interpreter with its libraries, and the masks of a slide.
_PROCESS_BYTES = 600 << 20
# Of what may be used; the rest is the system's, the page cache's and the fragmentation's.
_SHARE = 0.8


@dataclass(frozen=True)
class Layout:
    """The division.

    Attributes:
        processes: Worker processes.
        threads: Compute threads of one encoding thread.
        engine: Threads and memory of each process.
        devices: What each process finds in ``CUDA_VISIBLE_DEVICES``; None leaves it alone.
    """

    processes: int
    threads: int
    engine: PipelineConfig
    devices: tuple[str | None, ...]


def plan_layout(
    options: EncoderConfig,
    *,
    workers: int | None,
    slides: int,
    cores: int,
    memory: int,
    gpus: tuple[str, ...],
    buffer_bytes: int,
) -> Layout:
    """Divides the machine.

    On the CPU a network runs in several threads that share its weights, each of which computes on one core:
    one computation on two cores is not twice as fast (squeezenet1_1 140 tiles/s, 87 on one core), for a layer
    is split and waited for only so well. The descriptor is Python between small array operations: it
    gets processes. A GPU gets one process. Where memory is short there are fewer processes than cores, and
    pixels and features wait in smaller buffers.

    Args:
        options: The encoder.
        workers: Processes that the user wants; None decides here.
        slides: Slides of the job.
        cores: Cores that may be used.
        memory: Bytes that may be used.
        gpus: The devices to share out, empty for the CPU.
        buffer_bytes: Decoded pixels that all processes together may hold.
    """
    usable = int(memory * _SHARE)
    affordable = max(1, usable // _PROCESS_BYTES)
    buffer_bytes = min(buffer_bytes, usable // 8)
    if gpus:
        processes = _bounded(workers or min(len(gpus), affordable), slides)
        share = max(1, cores // processes)
        readers = min(_GPU_READERS, share)
        engine = PipelineConfig(
            batch_size=_batch(options), lanes=1, readers=readers, decode_threads=max(1, share // readers),
            buffer_bytes=buffer_bytes // processes, slide_bytes=_slide_bytes(usable, processes),
        )  # fmt: skip
        devices = tuple(gpus[number % len(gpus)] for number in range(processes))
        return Layout(processes, max(1, share // 2), engine, devices)
    if options.name == NUMPY:
        processes, lanes = _bounded(workers or min(cores, affordable), slides), 1
    else:
        processes = _bounded(workers or min(-(-cores // LANES), affordable), slides)
        lanes = max(1, min(cores // processes, memory // _LANE_BYTES // processes))
    threads = 1
    if options.backend in ("compile", "openvino"):
        lanes, threads = 1, lanes  # they divide a computation themselves
    engine = PipelineConfig(
        batch_size=_batch(options), lanes=lanes, buffer_bytes=buffer_bytes // processes,
        slide_bytes=_slide_bytes(usable, processes),
    )  # fmt: skip
    return Layout(processes, threads, engine, (None,) * processes)


def can_use_gpu(options: EncoderConfig) -> bool:
    """Whether an encoder would run on a GPU where there is one."""
    return options.device != "cpu" and options.name != NUMPY and options.backend not in ("onnx", "openvino")


def limit_threads(threads: int) -> int:
    """Lets torch use so many threads, if it is loaded at all; gives the number that it used before, or 0."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    before = int(torch.get_num_threads())
    if before != threads:
        torch.set_num_threads(threads)
    return before


def _slide_bytes(memory: int, processes: int) -> int:
    return min(PipelineConfig().slide_bytes, memory // 4 // processes)


def _batch(options: EncoderConfig) -> int:
    return PipelineConfig().batch_size if options.batch_size == "auto" else options.batch_size


def _bounded(processes: int, slides: int) -> int:
    return max(1, min(processes, slides))
