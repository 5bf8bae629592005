"""The origin of features: encoder, grid, tissue, artefacts and stain, kept with the models."""

from __future__ import annotations

import json
from typing import Any

from wsi_ncmi.cohorts.joined import JoinedBags
from wsi_ncmi.cohorts.patients import PatientBags
from wsi_ncmi.cohorts.sources import BagSource

__all__ = ["feature_origin"]

# Settings of a whole extraction besides those that all files of a folder are checked for.
_SETTINGS = ("tissue_method", "tissue_parameters", "min_tissue", "artifacts_rule", "decoding")


def feature_origin(source: BagSource) -> dict[str, Any]:
    """The origin of the features of a source; empty where it does not say.

    Args:
        source: The bags that models are trained on.

    Returns:
        JSON-ready values under the names of the feature files' attributes, and ``stain_target``: the numbers
        of the stain that tiles were given (the reference image itself need not be kept). ``joined`` lists the
        origins of joined encoders; ``bag`` is ``patient`` where bags are those of patients.
    """
    from wsi_ncmi.features import open_features_file

    if isinstance(source, PatientBags):
        return {**feature_origin(source.slides_source), "bag": "patient"}
    if isinstance(source, JoinedBags):
        return {"encoder": source.encoder, "joined": [feature_origin(part) for part in source.parts]}
    origin = dict(getattr(source, "identity", {}))
    if not origin:
        return {}
    first = open_features_file(source.path / f"{source.slide_ids[0]}.h5")
    origin |= {key: first.attrs[key] for key in _SETTINGS if key in first.attrs}
    if origin.get("stain", "none") != "none":
        for slide_id in source.slide_ids:  # a slide without tissue has none of its own
            found = open_features_file(source.path / f"{slide_id}.h5").attrs.get("stain_found")
            if found:
                origin["stain_target"] = json.dumps(json.loads(found)["target"], sort_keys=True)
                break
    return origin
