"""Options of the aggregators; free of torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wsi_ncmi.options import options

__all__ = ["ModelOptions"]

_Width = Annotated[int, Field(ge=1)]
_Probability = Annotated[float, Field(ge=0, lt=1)]


@options
class ModelOptions:
    """Which aggregator, and its settings.

    Attributes:
        name: A name of ``wsi_ncmi.mil.list_models()``.
        hidden: Width of the instance projection, and so of the slide embedding.
        attention: Width of the attention branch (attention models).
        dropout: Dropout after the projection and inside the attention branch.
        input_dropout: Dropout on the instance features themselves.
        standardise: Bring each feature to mean 0 and deviation 1 over the training instances first; for
            features of very different scales, such as the descriptor's.
    """

    name: str = "abmil"
    hidden: _Width = 128
    attention: _Width = 64
    dropout: _Probability = 0.25
    input_dropout: _Probability = 0.0
    standardise: bool = False
