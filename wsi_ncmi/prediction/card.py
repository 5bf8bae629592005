"""The model card: what the model is, what it was trained on, how well it did, what it is not for.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (arXiv 1810.03993).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsi_ncmi import __version__
from wsi_ncmi.prediction.bundle.model import ModelBundle

__all__ = ["INTENDED_USE", "LIMITS", "render_card"]

INTENDED_USE = (
    "Research on whole-slide images of the kind that the model was trained on: the same stain, "
    "organ, specimen "
    "and resolution."
)
LIMITS = (
    "Not a medical device and not validated for diagnosis. It knows only the classes listed here and "
    "answers one "
    "of them on anything, also on tissue that it never saw. Its probabilities were calibrated on "
    "slides of the "
    "training cohort; on other scanners, stains or patients they may be wrong. The flags for slides "
    "unlike the "
    "training catch coarse differences only."
)


@cache
def _environment() -> Environment:
    # Markdown, not HTML: nothing to escape but the pipes of tables.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("wsi_ncmi.prediction"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    return environment


def render_card(
    bundle: ModelBundle, selective: Mapping[str, float] | None, portable: Mapping[str, Any]
) -> str:
    """Renders the card.

    Args:
        bundle: The model.
        selective: What calibration and threshold do on out-of-fold test slides
            (:func:`wsi_ncmi.prediction.calibration.selective_table`); None where the run has none.
        portable: Name of each further form of the models → how far it is from them.

    Returns:
        Markdown.
    """
    first = bundle.ensemble.members[0].config
    return (
        _environment()
        .get_template("model_card.md.j2")
        .render(
            bundle=bundle,
            summary=bundle.summary,
            model=dict(first["model"]),
            loss=dict(first["loss"]),
            selective=selective,
            portable=portable,
            version=__version__,
        )
    )
