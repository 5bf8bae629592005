"""What hands out the slides of a job: this machine's processes, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo, load_encoder
from wsi_ncmi.extraction.execution.local import run_slides
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Load
from wsi_ncmi.extraction.task import SlideTask

__all__ = ["ExtractionEngine", "open_engine"]


class _Run(Protocol):
    def __call__(
        self,
        tasks: Sequence[SlideTask],
        *,
        workers: int | None,
        timeout_s: float | None,
        buffer_mib: int,
        progress: ProgressReporter,
        on_load: Callable[[Load], None],
    ) -> list[LedgerRow]: ...


@dataclass(frozen=True)
class ExtractionEngine:
    """Extracts the slides of a job with one encoder.

    Attributes:
        card: What the encoder is where it runs.
        run: Extracts slides as ``run_slides`` does; one row a task, in their order.
    """

    card: EncoderInfo
    run: _Run


@contextlib.contextmanager
def open_engine(
    name: Literal["local", "ray"], options: EncoderConfig, *, address: str | None = None
) -> Iterator[ExtractionEngine]:
    """Makes an engine ready: the encoder is found, and the cluster reached.

    Args:
        name: ``local`` or ``ray``.
        options: The encoder.
        address: Of the Ray cluster, as ``HOST:PORT``; None takes ``RAY_ADDRESS`` or this machine's.

    Raises:
        InputError: The encoder can't be loaded, or there is no such cluster.
    """
    if name == "local":
        encoder = load_encoder(options)
        run: _Run = partial(run_slides, encoder_options=options, encoder=encoder)
        yield ExtractionEngine(encoder.info, run)
        return
    from wsi_ncmi.extraction.execution.cluster_job import run_on_cluster
    from wsi_ncmi.extraction.execution.ray_cluster import connect

    with connect(address) as cluster:
        card = cluster.describe(options)
        run = partial(run_on_cluster, cluster, encoder_options=options, card=card)
        yield ExtractionEngine(card, run)
