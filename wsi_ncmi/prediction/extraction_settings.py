"""The extraction of new slides as the features were made that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.encoders.slide_encoders import NEEDS, SlideEncoder, mean_encoder, open_zoo_slide_encoder
from wsi_ncmi.encoders.weights_folder import find_weights_folder
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
    known = tile_origin(bundle.features, f"the model {bundle.name}")
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
        kind = str(tissue["method"]).partition(":")[0]
        others = {key for key, method in TissueConfig.methods_of.items() if method != kind}
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


def tile_origin(origin: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The origin of the tiles' features: of a model of slides' vectors what was under the slide encoder.

    Raises:
        InputError: The vectors were not made by encode-slides from features of ours.
    """
    if not origin.get("level"):
        return dict(origin)
    try:
        tiles = dict(parse_json(origin["transform"])["tiles"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{where[0].upper()}{where[1:]} takes vectors of {origin['level']}s, which 'wsi-ncmi "
            "encode-slides' didn't make, so new slides can't be encoded alike; give vectors to "
            "wsi_ncmi.load_bundle(…).predict(…)."
        ) from None
    return {**{key: value for key, value in origin.items() if key != "level"}, **tiles}


def slide_encoder_of(origin: Mapping[str, Any], config: PredictConfig, where: str) -> SlideEncoder | None:
    """The slide encoder that a model's vectors were made by; None for a model of tiles.

    Raises:
        InputError: It can't be had here, or has other weights.
    """
    if not origin.get("level"):
        return None
    name, tiles = str(origin.get("encoder")), tile_origin(origin, where)
    if name == f"mean-{tiles.get('encoder')}":
        return mean_encoder(str(tiles["encoder"]))
    if name not in NEEDS:
        raise InputError(
            f"{where[0].upper()}{where[1:]} takes vectors by {name}, which predict can't make; encode the "
            "slides by 'wsi-ncmi encode-slides' and give vectors to wsi_ncmi.load_bundle(…).predict(…)."
        )
    encoder = open_zoo_slide_encoder(name, find_weights_folder(config.weights_dir), "cpu")
    if encoder.weights_sha256 != origin.get("encoder_weights_sha256"):
        raise InputError(f"The weights of {name} here are others than those that {where} was trained with.")
    return encoder


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
