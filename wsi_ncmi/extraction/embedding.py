"""The embeddings of one slide in memory, the same as those of its feature file."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.config.keywords import from_keywords
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.encoders.weights_folder import resolve_weights
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.execution.plan import PipelineConfig
from wsi_ncmi.extraction.pipeline.pipeline import Pipeline
from wsi_ncmi.extraction.pipeline.slide_work import SlideWork
from wsi_ncmi.extraction.planning import make_tasks, with_mask_model
from wsi_ncmi.extraction.slide import SlideEmbedding
from wsi_ncmi.features.stain import stain_target
from wsi_ncmi.parallel import Finished, Message, Stopped
from wsi_ncmi.slides import Slide, take_inventory

if TYPE_CHECKING:
    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.features.stain import StainTarget


def embed_slide(
    slide: str | Path | Slide,
    encoder: str | EncoderConfig | Encoder = "descriptor",
    mpp: float | None = None,
    tile_px: int | None = None,
    **settings: Any,
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Embeds the tissue tiles of a slide; nothing is written.

    Args:
        slide: The file, or the open slide.
        encoder: Name, config, or an encoder that :func:`load_encoder` gave (loaded once for
            many slides).
        mpp: µm per pixel of the tiles; None = those of the encoder.
        tile_px: Edge of a tile at that resolution; None = that of the encoder.
        **settings: Further settings of ``wsi-ncmi extract``: ``weights``, ``tissue``, ``min_tissue``,
            ``artifacts``, ``stain``, ``default_mpp``….

    Returns:
        Features, float16 (N, D), and level-0 pixels (x, y) of the tiles' top-left corners, int64 (N, 2): the
        numbers of the file that ``extract`` writes, bit for bit. N is 0 for a slide without tissue.

    Raises:
        InputError: There is no such slide, or a setting is wrong.
        SlideError: The slide can't be read, or has no resolution.

    Example:
        >>> features, coords = embed_slide("slide.svs", "descriptor", mpp=0.5)  # doctest: +SKIP
    """
    if isinstance(slide, Slide):
        slide = slide.path
    if isinstance(encoder, Encoder):
        settings["encoder"] = {"name": encoder.info.name}
    else:
        settings["encoder"] = encoder
    given = {"slides": slide, "grid.mpp": mpp, "grid.tile_px": tile_px}
    found = {key: value for key, value in given.items() if value is not None}
    config = from_keywords(ExtractConfig, found | settings, "embed_slide")
    made = embed_as(config, encoder=encoder if isinstance(encoder, Encoder) else None)
    return np.asarray(made.features, np.float16), made.coords


def embed_as(
    config: ExtractConfig, *, encoder: Encoder | None = None, stain: StainTarget | None = None
) -> SlideEmbedding:
    """Embeds one slide as a job would.

    Args:
        config: The job; ``slides`` is one file, and ``out`` is not used.
        encoder: The encoder, loaded; None loads it.
        stain: What colours are brought to, in place of ``config.stain``.

    Raises:
        InputError: There is no such slide, or the configuration is wrong.
        SlideError: The slide can't be processed.
    """
    path = config.slides
    if path is None or not path.is_file():
        raise InputError(f"There is no slide {path}; give the path of one file.")
    if config.further_mpp:
        raise InputError("One resolution at a time is embedded in memory; leave further_mpp out.")
    records = take_inventory(path, mpp_table=config.mpp_table, default_mpp=config.default_mpp)
    config = with_mask_model(config)
    (task,) = make_tasks(config, records, stain or stain_target(config.stain))
    if task.record.problem:
        raise SlideError(task.record.problem)
    if encoder is None:
        encoder = load_encoder(resolve_weights(config.encoder, config.weights_dir))
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with _InMemory(encoder, messages.put, PipelineConfig()) as pipeline:
        pipeline.submit(0, task)
        while not isinstance(message := messages.get(), Finished):
            if isinstance(message, Stopped):
                raise message.error
    if pipeline.embedding is None:
        raise SlideError(message.result.reason)
    return pipeline.embedding


class _InMemory(Pipeline):
    """A pipeline that claims and writes nothing, and keeps the last slide's embeddings."""

    embedding: SlideEmbedding | None = None

    def _claim(self, work: SlideWork) -> LedgerRow | None:
        return None

    def _publish(self, work: SlideWork) -> None:
        if work.prepared is None or work.error is not None:
            return
        try:
            self.embedding = work.assemble(self._encoder.info)
        except SlideError as error:
            work.fail(error)
