"""What annotations do to a tissue mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.annotation import Annotation, Annotations
from wsi_ncmi.tissue.annotation_config import AnnotationConfig
from wsi_ncmi.tissue.mask import TissueMask
from wsi_ncmi.tissue.raster import raster

__all__ = ["apply_annotations"]

_SAID = {
    "tissue": "tissue is what was outlined by hand",
    "include": "only tissue inside {n} areas drawn by hand counts",
    "add": "{n} areas drawn by hand were added to the tissue",
    "exclude": "{n} areas drawn by hand were excluded from the tissue",
}


def apply_annotations(
    mask: TissueMask, annotations: Sequence[Annotation], options: AnnotationConfig | None = None
) -> TissueMask:
    """Replaces, restricts, extends and cuts a mask by areas that a person drew.

    In this order: areas of a ``tissue`` class replace the mask, ``include`` restricts it, ``add`` extends it,
    ``exclude`` cuts it. Areas of other classes do nothing. No area limit is applied to the result: what was
    drawn is meant.

    Args:
        mask: The automatic mask.
        annotations: What was drawn, in level-0 pixels.
        options: Which class names do what; the documented defaults where None.

    Returns:
        A new mask; its parameters tell the annotations' hash and how many areas of each role there were.
    """
    roles = options or AnnotationConfig()
    drawn: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        drawn.setdefault(roles.role_of(annotation.name), []).append(annotation)

    def covered(role: str) -> NDArray[np.bool_]:
        polygons = [annotation.polygon for annotation in drawn[role]]
        return raster(polygons, mask.mask.shape, mask.downsample_x, mask.downsample_y)

    result = covered("tissue") if "tissue" in drawn else mask.mask.copy()
    if "include" in drawn:
        result &= covered("include")
    if "add" in drawn:
        result |= covered("add")
    if "exclude" in drawn:
        result &= ~covered("exclude")
    counts = Counter({role: len(areas) for role, areas in drawn.items()})
    known = {role: counts[role] for role in ("tissue", "include", "add", "exclude", "other")}
    notes = [] if "tissue" in drawn or not mask.note else [mask.note]
    notes += [said.format(n=counts[role]) for role, said in _SAID.items() if role in drawn]
    if set(drawn) <= {"other"}:
        notes.append("no area of the annotations has a class that changes the tissue")
    notes += getattr(annotations, "notes", ())
    identity = Annotations(annotations).sha256
    return replace(
        mask,
        mask=result,
        parameters={**mask.parameters, "annotations": {"sha256": identity, **known}},
        note="; ".join(notes),
    )
