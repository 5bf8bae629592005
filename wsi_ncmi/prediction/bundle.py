"""Model bundles: models with calibration and OOD statistics, loaded from a bundle or a run."""

import hashlib
import json
import logging
import math
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from wsi_ncmi import __version__
from wsi_ncmi.core.arguments import as_tensor, described
from wsi_ncmi.core.config.keywords import from_keywords
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.encoders.slide_encoders import stored_vector
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.ensemble import Ensemble, EnsembleOutput, headline_folder, load_ensemble
from wsi_ncmi.prediction.ood import OodDetector
from wsi_ncmi.training.bundle_io import (
    BUNDLE_SCHEMA,
    CARD,
    MANIFEST,
    MEMBERS,
    REFERENCE,
    SUMS,
    read_files,
    sums_of,
)
from wsi_ncmi.training.bundle_signatures import KEY_VARIABLE, configured_key
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS, trained_from_bytes

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)  # models have no one truth value to compare by
class ModelBundle:
    """Trained models with everything that the prediction of a new slide needs.

    Attributes:
        ensemble: The models: folds and seeds.
        calibration: Temperature and threshold.
        ood: Statistics of the training slides; None where the model has none.
        summary: Cohort, metrics and hashes of the training, JSON-ready.
        intended_use: What the model is for, a sentence or more.
        limits: What the model is not for.
        version: Its version, where ``export --version`` gave one.
        digest: SHA-256 that changes with anything that changes a prediction.
    """

    ensemble: Ensemble
    calibration: Calibration = field(default_factory=Calibration)
    ood: OodDetector | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = ""
    limits: str = ""
    version: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.ensemble.classes

    @property
    def features(self) -> Mapping[str, Any]:
        """Encoder, grid and settings of the features that the models take."""
        return self.ensemble.features

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.ensemble.name

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What an answer says of the model that gave it: ``name``, ``version`` and ``digest``."""
        return {"name": self.name, "version": self.version, "digest": self.digest}

    @property
    def title(self) -> str:
        """Name and, where it has one, version."""
        return f"{self.name} {self.version}".rstrip()

    @property
    def cohort_sha256(self) -> str:
        """Hash of slide, patient, class and centre of the training cohort; empty where it is unknown."""
        hashes = self.summary.get("hashes")
        return str(hashes.get("labels", "")) if isinstance(hashes, Mapping) else ""

    @property
    def digest(self) -> str:
        """SHA-256 of weights, classes, calibration and bounds: equal digests give equal predictions."""
        content = {
            "weights": [str(member.config["weights_sha256"]) for member in self.ensemble.members],
            "classes": list(self.classes),
            "features": dict(self.features),
            "calibration": self.calibration.to_json(),
            "reference": None if self.ood is None else self.ood.to_json(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def predict(
        self,
        features: NDArray[np.floating[Any]] | Any,
        coords: NDArray[np.integer[Any]] | None = None,
        **settings: Any,
    ) -> EnsembleOutput:
        """Predicts one slide, with calibrated probabilities and spread.

        Args:
            features: Its tile embeddings (N, D), array or tensor; of a model of slides' vectors also (D,); or
                the path of the slide, which is embedded in memory as the model's own slides were.
            coords: The tiles' level-0 corners (N, 2); models with distance biases need them.
            **settings: For a path: ``weights`` of the encoder, ``weights_dir``, ``device``, ``default_mpp``….

        Raises:
            InputError: Embeddings that the models don't take, no such slide, or one without tissue.
            SlideError: The slide can't be read.
        """
        if isinstance(features, str | Path):
            features, coords = self._embedded(Path(features), settings)
        elif settings:
            raise InputError(f"Features need no setting {min(settings)!r}; it goes with the path of a slide.")
        tiles = as_tensor(features, "The features of a slide", "(N, D), or the path of the slide")
        if tiles.ndim == 1 and self.features.get("level"):
            tiles = tiles[None]
        if tiles.ndim != 2 or not tiles.is_floating_point() or not len(tiles):
            raise InputError(
                f"The features of a slide are (N, D) floating-point numbers of at least one tile, got "
                f"{described(tiles)}."
            )
        tiles = tiles.detach().cpu().float()
        if not tiles.isfinite().all():  # also what only 64 bits hold
            raise InputError("The features of the slide hold NaN or infinity; extract it again.")
        features = tiles.numpy()
        if coords is not None:
            places = as_tensor(coords, "The coordinates", "(N, 2)").detach().cpu()
            if places.shape != (len(tiles), 2):
                raise InputError(
                    f"The coordinates must be ({len(tiles)}, 2), a place for every tile, got "
                    f"{described(places)}."
                )
            coords = places.numpy()
        output = self.ensemble.predict(features, coords)
        apply = self.calibration.apply
        return replace(output, probabilities=apply(output.probabilities), members=apply(output.members))

    def _embedded(
        self, slide: Path, settings: Mapping[str, Any]
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64] | None]:
        from wsi_ncmi.extraction.embedding import embed_as

        # By name, as it knows bundles itself.
        settings_of = pkgutil.resolve_name("wsi_ncmi.prediction.extraction_settings")
        given = {"slides": slide, "model": self.name, "out": "out", **settings}
        config = from_keywords(PredictConfig, given, "predict")
        stain = settings_of.stain_target_of(self.features, f"the model {self.name}")
        embedding = embed_as(settings_of.extract_config(self, config), stain=stain)
        if not len(embedding.features):
            raise InputError(f"{slide.name} has no tissue tile: there is nothing to predict from.")
        encoder = settings_of.slide_encoder_of(self.features, config, f"the model {self.name}")
        if encoder is not None:
            edge = math.sqrt(math.prod(embedding.slide.tile_size_level0))
            vector = stored_vector(encoder, embedding.features, embedding.coords, edge)
            return vector, None
        return embedding.features, embedding.coords

    def __repr__(self) -> str:
        made = self.features
        encoder = f"{made.get('encoder')}, {made.get('tile_px')} px at {made.get('mpp_target')} µm per pixel"
        count = counted(len(self.ensemble.members), "model")
        return f"<ModelBundle {self.title}: {count}, classes {', '.join(self.classes)}; {encoder}>"


_REMEDY = "export the model again"
_VERSION = re.compile(r"wsi-ncmi-bundle/(\d+)")


def is_bundle(path: Path) -> bool:
    """True for a bundle, false for a run folder."""
    return path.is_file() or (path / MANIFEST).is_file()


def load_model(path: Path) -> ModelBundle:
    """Loads a bundle, or the models of a run folder (uncalibrated, without OOD statistics and threshold).

    Args:
        path: Bundle (folder or zip), ``RUN`` (of several losses the headline's models, with a warning),
            ``RUN/<loss>`` or ``RUN/fold_0/seed_0``.

    Raises:
        InputError: Nothing there that can be loaded, or it isn't signed though a key is configured.
    """
    path = Path(path)
    if is_bundle(path):
        return load_bundle(path)
    if (key := configured_key()) is not None:
        raise InputError(
            f"{path} is no bundle, and {KEY_VARIABLE} allows only bundles signed by {key.name}; export it "
            "and have it signed."
        )
    run = headline_folder(path)
    if run != path:
        _LOG.warning("%s holds several losses; the models of the headline, %s, are taken.", path, run.name)
    return ModelBundle(load_ensemble(run))


def load_bundle(path: Path | str, *, check_signed: bool = True) -> ModelBundle:
    """Loads a bundle. Weights are read as safetensors, everything else is JSON: no code in it is executed.

    Args:
        path: Folder or zip that ``export`` wrote.
        check_signed: Check the signature where ``WSI_NCMI_MODEL_KEY`` names a public key.

    Raises:
        InputError: No bundle, one that was changed, is of a newer layout, isn't signed by the key that is
            configured, or contradicts itself.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"A bundle is given by its path, got {described(path)}.")
    path = Path(path)
    files = read_files(path, check_signed=check_signed)
    manifest = _manifest(files, path)
    try:
        names = [str(name) for name in manifest["members"]]
        classes = tuple(str(name) for name in manifest["classes"])
        features = dict(manifest["features"])
        title = str(manifest["name"])
        calibration = Calibration.from_json(manifest["calibration"], str(path))
        summary, use, limits = dict(manifest["training"]), manifest["intended_use"], manifest["limits"]
        version = str(manifest.get("version", ""))  # 0.1.0 wrote none
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{MANIFEST} of {path} lacks or garbles {error}; {_REMEDY}.") from error
    if not names:
        raise InputError(f"{path} lists no model; {_REMEDY}.")
    if calibration.at_limit:
        _LOG.warning("%s: %s", path, calibration.at_limit)
    members = []
    for name in names:
        description, weights = (files.get(f"{MEMBERS}/{name}/{file}") for file in (MODEL_JSON, MODEL_WEIGHTS))
        if description is None or weights is None:
            raise InputError(f"{path} lists the model {name} but lacks its files; {_REMEDY}.")
        member = trained_from_bytes(description, weights, f"{path}/{MEMBERS}/{name}")
        if member.classes != classes:
            raise InputError(
                f"{path} says that its classes are {', '.join(classes)}, but its model {name} was trained on "
                f"{', '.join(member.classes)}; {_REMEDY}."
            )
        if (member.config.get("encoder") or {}) != features:
            raise InputError(f"{path} and its model {name} name different encoders or grids; {_REMEDY}.")
        members.append(member)
    return ModelBundle(
        ensemble=Ensemble(tuple(members), classes, features, title),
        calibration=calibration,
        ood=_ood(manifest, files, path),
        summary=summary,
        intended_use=str(use),
        limits=str(limits),
        version=version,
    )


def _manifest(files: Mapping[str, bytes], path: Path) -> dict[str, Any]:
    try:
        manifest = dict(parse_json(files[MANIFEST]))
        schema = str(manifest["schema"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{MANIFEST} of {path} can't be read ({error}); {_REMEDY}.") from error
    if schema != BUNDLE_SCHEMA:
        match, own = _VERSION.fullmatch(schema), _VERSION.fullmatch(BUNDLE_SCHEMA)
        newer = match is not None and own is not None and int(match[1]) > int(own[1])
        remedy = "update wsi-ncmi" if newer else _REMEDY
        raise InputError(
            f"{path} has the schema {schema!r} but this version reads {BUNDLE_SCHEMA!r}; {remedy}."
        )
    return manifest


def _ood(manifest: Mapping[str, Any], files: Mapping[str, bytes], path: Path) -> OodDetector | None:
    bounds = manifest.get("reference")
    if bounds is None:
        return None
    try:
        tensors = load_arrays(files[REFERENCE])
    except (KeyError, SafetensorError, TypeError, ValueError) as error:  # TypeError: a type numpy lacks
        raise InputError(f"{REFERENCE} of {path} can't be read ({error}); {_REMEDY}.") from error
    return OodDetector.load(bounds, tensors, str(path))


def bundle_files(
    bundle: ModelBundle,
    member_files: Mapping[str, tuple[bytes, bytes]],
    *,
    card: str,
    portable: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The content of a bundle.

    Args:
        bundle: The model.
        member_files: Name of each member → its ``model.json`` and ``model.safetensors``, in the order of the
            ensemble.
        card: The model card, Markdown.
        portable: Additional forms of the models by path below ``portable/``.

    Returns:
        Path below the bundle → content, ``SHA256SUMS`` included.
    """
    extra = {f"portable/{name}": content for name, content in (portable or {}).items()}
    manifest: dict[str, Any] = {
        "schema": BUNDLE_SCHEMA,
        "software": f"wsi-ncmi {__version__}",
        "name": bundle.name,
        "version": bundle.version,
        "classes": list(bundle.classes),
        "features": dict(bundle.features),
        "members": list(member_files),
        "calibration": bundle.calibration.to_json(),
        "reference": None if bundle.ood is None else bundle.ood.to_json(),
        "training": dict(bundle.summary),
        "intended_use": bundle.intended_use,
        "limits": bundle.limits,
        "portable": sorted(extra),
    }
    files = {
        MANIFEST: (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        CARD: card.encode(),
        **extra,
    }
    for name, (description, weights) in member_files.items():
        files[f"{MEMBERS}/{name}/{MODEL_JSON}"] = description
        files[f"{MEMBERS}/{name}/{MODEL_WEIGHTS}"] = weights
    if bundle.ood is not None:
        files[REFERENCE] = save_arrays(bundle.ood.tensors())
    files[SUMS] = sums_of(files)
    return files
