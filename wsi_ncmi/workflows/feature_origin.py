"""What made the features of a model: kept with it, so that new slides are treated alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import BagSource, JoinedBags, PatientBags
from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.tissue import ArtifactConfig

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainTarget

__all__ = ["artifacts_of", "feature_origin", "stain_of"]

# Settings of a whole extraction besides those that all files of a folder are checked for.
_SETTINGS = ("tissue_method", "tissue_parameters", "min_tissue", "artifacts_rule", "decoding")


def feature_origin(source: BagSource) -> dict[str, Any]:
    """What made the features of a source; empty where it does not say.

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


def artifacts_of(origin: Mapping[str, Any], where: str) -> ArtifactConfig:
    """The artefact options that features were made with; ``keep`` where the origin does not say.

    Raises:
        InputError: They are not such options.
    """
    rule = str(origin.get("artifacts_rule") or "keep")
    values = _json(rule, where) if rule.startswith("{") else {"rule": rule}
    values.pop("detectors", None)  # this version's score the new slides, whatever scored the training's
    return config_from(ArtifactConfig, values, where)


def stain_of(origin: Mapping[str, Any], where: str) -> StainTarget | None:
    """The stain that features were given; None where colours stayed.

    Raises:
        InputError: The origin has no such stain, or one that this version does not know.
    """
    from wsi_ncmi.features.stain import StainTarget
    from wsi_ncmi.features.stain.target import model_class

    identity = str(origin.get("stain") or "none")
    if identity == "none":
        return None
    try:
        facts, target = _json(identity, where), _json(str(origin["stain_target"]), where)
        numbers = {name: tuple(v) if isinstance(v, list) else v for name, v in target.items()}
        model = model_class(str(numbers.pop("method")))(**numbers)
        return StainTarget(model, int(facts["sample_tiles"]), identity)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The stain normalisation that {where} was trained with can't be read ({error}); train it again."
        ) from error


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"The settings of {where} can't be read ({error}); train it again.") from error
