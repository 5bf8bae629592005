"""An extraction job on a Ray cluster: the driver holds the ledger, the files on disk stay the truth."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from wsi_ncmi import __version__
from wsi_ncmi.core.files import TEMPORARY_SUFFIX
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo
from wsi_ncmi.extraction.execution.bookkeeping import keeping_books
from wsi_ncmi.extraction.execution.places import Place
from wsi_ncmi.extraction.execution.ray_cluster import RayCluster
from wsi_ncmi.extraction.execution.ray_crew import RayCrew
from wsi_ncmi.extraction.execution.remote import Order
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Load
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.storage import storing

__all__ = ["run_on_cluster"]

_LOG = logging.getLogger(__name__)
_NOWHERE = Place("", 0, 1, False, 1)


def run_on_cluster(
    cluster: RayCluster,
    tasks: Sequence[SlideTask],
    encoder_options: EncoderConfig,
    card: EncoderInfo,
    *,
    workers: int | None = None,
    timeout_s: float | None = None,
    buffer_mib: int = 512,
    progress: ProgressReporter | None = None,
    on_row: Callable[[LedgerRow], None] | None = None,
    on_load: Callable[[Load], None] | None = None,
) -> list[LedgerRow]:
    """Extracts slides with workers on all nodes; otherwise like ``run_slides``.

    Claims, feature files and the journal are those of a local run, so a job may be begun here and finished
    there, and the driver may be killed at any moment.

    Args:
        cluster: The cluster.
        tasks: The job; all nodes see its folders under the same paths.
        encoder_options: The encoder.
        card: What ``cluster.describe`` said of it; every worker has to agree.
        workers: Most workers altogether; None: one a GPU, or what suits encoder and cores.
        timeout_s: Seconds after which a slide is given up.
        buffer_mib: Decoded pixels between reading and encoding, all processes of a node together.
        progress: Told about every slide.
        on_row: Called here with every row as it comes.
        on_load: Called once at the end with what the encoders had to do.

    Returns:
        One row a task, in the order of the tasks.

    Raises:
        InputError: No node can work on the job.
        JobStoppedError: The output can't be written to, or the cluster is gone.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    with keeping_books(tasks, progress, on_row, on_load) as books:
        if tasks:
            todo = [_absolute(task) for task in tasks]
            options = _pinned(encoder_options, card)
            with _probe(todo[0].out) as probe:
                order = Order(
                    options, card, _NOWHERE, buffer_mib << 20, len(todo), __version__, todo[0].root, probe
                )
                crew = RayCrew(
                    cluster, todo, options, order, workers=workers, timeout_s=timeout_s, books=books
                )  # fmt: skip
                try:
                    crew.run()
                finally:
                    crew.stop()
        return books.rows


def _absolute(task: SlideTask) -> SlideTask:
    """The task for a process that has another working directory."""
    drawn = task.annotations
    if drawn is not None and drawn.path is not None:
        drawn = replace(drawn, path=drawn.path.absolute())
    return replace(task, root=task.root.absolute(), out=task.out.absolute(), annotations=drawn)


def _pinned(options: EncoderConfig, card: EncoderInfo) -> EncoderConfig:
    """The options with everything that a node could decide by itself already decided."""
    weights = None if options.weights is None else options.weights.absolute()
    return replace(
        options,
        weights=weights,
        device="cuda" if RayCluster.runs_on_gpu(card) else "cpu",
        precision=cast(Literal["fp32", "bf16", "fp16"], card.precision),
        batch_size=card.batch_size or options.batch_size,
    )


@contextlib.contextmanager
def _probe(out: Path) -> Iterator[Path]:
    """A file in the output folder by which a node can tell that it sees the same folder."""
    path = out / f".cluster-{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    with storing(path):
        out.mkdir(parents=True, exist_ok=True)
        path.touch()
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
