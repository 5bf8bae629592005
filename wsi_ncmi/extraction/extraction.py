"""One slide from file to feature file; whatever happens to it ends in a ledger row."""

from __future__ import annotations

import queue

from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.claims import check_conflicts, clean_up
from wsi_ncmi.extraction.ledger import ALREADY_EXTRACTED, CLAIMED, LedgerRow, failed_row
from wsi_ncmi.extraction.pipeline.config import PipelineConfig
from wsi_ncmi.extraction.pipeline.engine import Engine
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel import Finished, Message, Stopped

__all__ = ["ALREADY_EXTRACTED", "CLAIMED", "check_conflicts", "clean_up", "extract_slide", "failed_row"]


def extract_slide(task: SlideTask, encoder: Encoder, *, batch_size: int = 16) -> LedgerRow:
    """Extracts one slide: tissue, tiles, embeddings, feature file, outline, thumbnail.

    Args:
        task: What to do.
        encoder: The encoder.
        batch_size: Tiles handed to the encoder at a time where it does not say itself.

    Returns:
        The slide's ledger row. A slide that can't be processed is ``failed`` with the reason; a slide without
        tissue is ``done`` with 0 tiles; one that is there already is ``skipped``.

    Raises:
        IdentityConflictError: A file of another identity is there and ``task.overwrite`` is off.
        JobStoppedError: The output can't be written to (disk full, read-only, gone).
    """
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Engine(encoder, messages.put, PipelineConfig(batch_size=batch_size)) as engine:
        engine.submit(0, task)
        while True:
            message = messages.get()
            if isinstance(message, Stopped):
                raise message.error
            if isinstance(message, Finished):
                row: LedgerRow = message.result
                return row
