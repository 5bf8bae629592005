"""The worker of an extraction: an encoder, and the pipeline that feeds it.

The pipeline, with all that reads slides, is imported where it starts: a supervisor only sends workers out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.execution.plan import DESCRIPTOR, ResourcePlan
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel.limits import keep_large_buffers, limit_threads
from wsi_ncmi.parallel.worker import Message

if TYPE_CHECKING:
    from wsi_ncmi.extraction.pipeline import Pipeline


class SlideWorker:
    """Extracts the slides that it is handed, several at a time.

    Args:
        encoder: The encoder, loaded here.

    Attributes:
        info: What the encoder is.

    Raises:
        InputError: The encoder can't be loaded.
    """

    def __init__(self, encoder: EncoderConfig) -> None:
        if encoder.name != DESCRIPTOR:
            keep_large_buffers()
        self._encoder = load_encoder(encoder)
        self.info = self._encoder.info
        self._pipeline: Pipeline | None = None
        self._threads_before = 0

    def begin(self, config: ResourcePlan, send: Callable[[Message], None]) -> None:
        """Starts the pipeline, which asks for its first slides.

        Args:
            config: Threads and memory.
            send: Told every message, from several threads.
        """
        from wsi_ncmi.extraction.pipeline import Pipeline

        self._threads_before = limit_threads(config.threads)
        self._pipeline = Pipeline(self._encoder, send, config.pipeline)
        self._pipeline.__enter__()

    def submit(self, index: int, item: SlideTask) -> None:
        """Hands a slide in, one for each ``SlotFree``."""
        if self._pipeline is not None:
            self._pipeline.submit(index, item)

    def end(self, *, abort: bool) -> None:
        """Ends the pipeline; another one may begin.

        Args:
            abort: Give up what is in flight, so that no claim and no temporary file stays; else wait for it.
        """
        if self._pipeline is not None:
            if abort:
                self._pipeline.abort()
            else:
                self._pipeline.__exit__(None, None, None)
            self._pipeline = None
            if self._threads_before:
                limit_threads(self._threads_before)
