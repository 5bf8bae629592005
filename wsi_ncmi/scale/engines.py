"""What hands out the slides of a job: this machine's processes, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from wsi_ncmi.encoders import Encoder, EncoderOptions, load_encoder
from wsi_ncmi.features import LedgerRow, SlideTask
from wsi_ncmi.features.engine import Load
from wsi_ncmi.progress import ProgressReporter
from wsi_ncmi.scale.encoder_card import EncoderCard
from wsi_ncmi.scale.local import run_slides

__all__ = ["ExtractionEngine", "open_engine"]


class ExtractionEngine(Protocol):
    """Extracts the slides of a job with one encoder."""

    @property
    def card(self) -> EncoderCard:
        """What the encoder is where it runs."""

    def run(
        self,
        tasks: Sequence[SlideTask],
        *,
        workers: int | None,
        timeout_s: float | None,
        buffer_mib: int,
        progress: ProgressReporter,
        on_load: Callable[[Load], None],
    ) -> list[LedgerRow]:
        """Extracts slides as ``run_slides`` does; one row a task, in their order."""


class _Local:
    def __init__(self, options: EncoderOptions) -> None:
        self._options = options
        self._encoder: Encoder = load_encoder(options)
        self.card = EncoderCard.of(self._encoder)

    def run(
        self,
        tasks: Sequence[SlideTask],
        *,
        workers: int | None,
        timeout_s: float | None,
        buffer_mib: int,
        progress: ProgressReporter,
        on_load: Callable[[Load], None],
    ) -> list[LedgerRow]:
        return run_slides(
            tasks, self._options, workers=workers, timeout_s=timeout_s, buffer_mib=buffer_mib,
            encoder=self._encoder, progress=progress, on_load=on_load,
        )  # fmt: skip


@contextlib.contextmanager
def open_engine(
    name: Literal["local", "ray"], options: EncoderOptions, *, address: str | None = None
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
        yield _Local(options)
        return
    from wsi_ncmi.scale.cluster_job import run_on_cluster
    from wsi_ncmi.scale.ray_cluster import RayCluster, connect

    class _OnRay:
        def __init__(self, cluster: RayCluster) -> None:
            self._cluster = cluster
            self.card = cluster.describe(options)

        def run(
            self,
            tasks: Sequence[SlideTask],
            *,
            workers: int | None,
            timeout_s: float | None,
            buffer_mib: int,
            progress: ProgressReporter,
            on_load: Callable[[Load], None],
        ) -> list[LedgerRow]:
            return run_on_cluster(
                self._cluster, tasks, options, self.card, workers=workers, timeout_s=timeout_s,
                buffer_mib=buffer_mib, progress=progress, on_load=on_load,
            )  # fmt: skip

    with connect(address) as cluster:
        yield _OnRay(cluster)
