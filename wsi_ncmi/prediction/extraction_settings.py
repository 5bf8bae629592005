"""The extraction of new slides as the features were made that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainTarget


def extract_config(bundle: ModelBundle, config: PredictConfig) -> ExtractConfig:
    """The extraction config for new slides: encoder, grid, tissue and artefacts of the model.

    Args:
        bundle: The model.
        config: Slides, output folder, weights and processes.

    Raises:
        InputError: The model does not say what made its features, or says what this version does not know.
    """
    known = dict(bundle.features)
    if known.get("joined"):
        raise InputError(
            f"The model {bundle.name} was trained on the joined embeddings of {known.get('encoder')}; new "
            "slides are encoded with one encoder: train on one alone."
        )
    missing = [key for key in ("encoder", "mpp_target", "tile_px", "overlap_px") if known.get(key) is None]
    if missing:
        raise InputError(
            f"The model {bundle.name} does not say which {missing[0]} its features had (it was trained on "
            "features that were not made by 'wsi-ncmi extract'), so new slides can't be encoded alike."
        )
    where = f"the model {bundle.name}"
    encoder = {"name": known["encoder"], "weights": config.weights, "device": config.device}
    if known.get("precision") in ("fp32", "bf16", "fp16"):
        encoder["precision"] = known["precision"]
    if encoder.get("precision") == "fp16" and config.device == "cpu":
        encoder["precision"] = "fp32"  # features are float16 anyway, and the CPU only emulates fp16
    grid: dict[str, Any] = {"mpp": known["mpp_target"], "tile_px": known["tile_px"]}
    # The model learned from this grid, whatever its encoder was trained at.
    grid["allow_other_grid"] = True
    grid["overlap_px"] = known["overlap_px"]
    grid["scaled_decoding"] = known.get("decoding") == "scaled"
    if known.get("min_tissue") is not None:
        grid["min_tissue"] = known["min_tissue"]
    try:
        tissue = parse_json(known["tissue_parameters"]) if known.get("tissue_parameters") else {}
    except (ValueError, TypeError) as error:
        raise InputError(
            f"The tissue settings of {where} can't be read ({error}); train it again."
        ) from error
    if known.get("tissue_method"):
        tissue["method"] = known["tissue_method"]
        # Earlier versions recorded settings of the other methods too; they had no effect.
        others = {key for key, method in TissueConfig.methods_of.items() if method != tissue["method"]}
        tissue = {key: value for key, value in tissue.items() if key not in others}
    values = {
        "slides": config.slides,
        "out": config.cache or config.out,
        "encoder": encoder,
        "grid": grid,
        "tissue": tissue,
        "artifacts": artifact_config_of(known, where),
        "extraction": config.extraction,
        "mpp_table": config.mpp_table,
        "default_mpp": config.default_mpp,
        "weights_dir": config.weights_dir,
        "known_failures": config.known_failures,
    }
    return config_from(ExtractConfig, values, where)


def artifact_config_of(origin: Mapping[str, Any], where: str) -> ArtifactConfig:
    """The artefact settings that features were made with; ``keep`` where the origin does not say.

    Raises:
        InputError: They are not such settings.
    """
    rule = str(origin.get("artifacts_rule") or "keep")
    values = _json(rule, where) if rule.startswith("{") else {"rule": rule}
    if values.get("detectors") in (1, 2, 3):  # of before 0.1: today's score the new slides
        del values["detectors"]
    return config_from(ArtifactConfig, values, where)


def stain_target_of(origin: Mapping[str, Any], where: str) -> StainTarget | None:
    """The stain that the colours of features were brought to; None where they stayed.

    Raises:
        InputError: The origin has no such stain, or one that this version does not know.
    """
    identity = str(origin.get("stain") or "none")
    if identity == "none":
        return None
    from wsi_ncmi.features.stain import StainTarget
    from wsi_ncmi.features.stain.target import model_class

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
        return dict(parse_json(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"The settings of {where} can't be read ({error}); train it again.") from error
