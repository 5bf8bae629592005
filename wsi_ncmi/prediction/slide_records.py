"""Predictions of slides and their explanations on disk; those of the same input are kept."""

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.bags import FeatureFolder
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.core.files import ensure_folder, parse_json, write_json, write_text
from wsi_ncmi.core.leftovers import clean_folder
from wsi_ncmi.encoders.slide_encoders import SlideEncoder, stored_vector
from wsi_ncmi.features import FeatureFile, open_features_file
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.dicom_results import RESULT_FOLDERS, DicomSource, not_dicom, write_dicom_results
from wsi_ncmi.prediction.ood import slide_properties
from wsi_ncmi.prediction.pages import write_slide_page
from wsi_ncmi.prediction.slide_prediction import NO_TILES, SlidePrediction, no_prediction, predict_slide
from wsi_ncmi.reporting.heatmaps import TileValues, tile_values, write_heatmaps, write_tiles_geojson
from wsi_ncmi.slides import open_slide, read_slides_csv

_SCHEMA = "wsi-ncmi-slide-answer/1"
_REPORT = "../report.html"


def rules(config: PredictConfig) -> dict[str, Any]:
    """Settings of abstention as in the records: ``unlike`` is ``abstain``, ``flag`` or a multiple."""
    words = {1.0: "abstain", float("inf"): "flag"}
    return {
        "abstain_below": config.abstain_below,
        "unlike": words.get(config.ood_threshold, config.ood_threshold),
    }


def explanation_settings(config: PredictConfig) -> dict[str, Any]:
    """Settings of the explanations, as they stand in the records."""
    settings = {name: getattr(config, name) for name in ("heatmaps", "scale", "top", "geojson")}
    if config.dicom.write:  # records of earlier versions know nothing of it
        settings["dicom"] = asdict(config.dicom)
    return settings


class SlideRecords:
    """Predicts slides, or takes what an earlier run of the same model on the same features left.

    Args:
        bundle: The model.
        config: Slide folder, output folder, and what to make.
        features: Folder of feature files.
        slides: ``slides.csv`` of the extraction.
        timed: Measures the stages.
        slide_encoder: Makes the vector that the model takes; None = it takes the tiles.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        config: PredictConfig,
        *,
        features: Path,
        slides: Path,
        timed: Callable[[str], AbstractContextManager[None]],
        slide_encoder: SlideEncoder | None = None,
    ) -> None:
        self._slide_encoder = slide_encoder
        self._bundle, self._config, self._features, self._timed = bundle, config, features, timed
        self._out = config.out
        self._slides = {record.slide_id: record for record in read_slides_csv(slides)}
        self._digest = bundle.digest
        clean_folder(self._out)
        for name in ("slides", "attention", "heatmaps", *(RESULT_FOLDERS if config.dicom.write else ())):
            clean_folder(ensure_folder(self._out / name))

    @cached_property
    def _source(self) -> FeatureFolder:
        return FeatureFolder(self._features)

    def predict(self, slide_id: str, case_id: str = "") -> tuple[SlidePrediction, str, str]:
        """Predicts one slide.

        Args:
            slide_id: The slide; its features are there.
            case_id: Its patient, where known.

        Returns:
            The prediction; a sentence where it or its pictures failed, else empty; and one where the slide
            has no DICOM objects though they were asked for.
        """
        config = self._config
        # Told by every run, as the ledger is about every slide.
        no_dicom = ""
        if config.dicom.write:
            opened = self._files(slide_id)
            no_dicom = not_dicom(opened[0] if isinstance(opened, tuple) else opened)
        try:
            file = self.open(slide_id)
            if file.n_tiles == 0:
                self.retire(slide_id)
                return no_prediction(slide_id, NO_TILES), "", ""
            key = self._key(file, case_id)
            record = self._out / "slides" / f"{slide_id}.json"
            kept = self._kept(record, key)
            if kept is not None:
                return kept, "", no_dicom
            self.retire(slide_id, key)
            with self._timed("prediction"):
                features, coords = self.load(file, slide_id)
                prediction, output = predict_slide(
                    self._bundle, slide_id, features, slide_properties(file), config, coords
                )
                prediction = replace(prediction, tiles=file.n_tiles)
                evidence = None  # a vector of the whole slide has none
                if self._slide_encoder is None and (config.heatmaps or config.geojson or config.dicom.write):
                    evidence = self._bundle.ensemble.tile_probabilities(features)
        except (InputError, SlideError) as error:
            return no_prediction(slide_id, str(error)), str(error), ""
        prediction = replace(prediction, case_id=case_id)
        problem, whole, files = "", True, {}
        if evidence is not None:
            tiles = tile_values(file, output.attention, evidence, self._bundle.classes)
            with self._timed("heatmaps"):
                try:
                    files = self._explain(prediction, tiles)
                except SlideError as error:
                    problem, whole = f"no heatmap ({error})", False
            if config.dicom.write and not no_dicom:
                with self._timed("DICOM"):
                    try:
                        files |= self._write_dicom(prediction, tiles)
                    except SlideError as error:
                        no_dicom, whole = str(error), False
        if whole:  # what is missing is made by the next run
            names = {name: path.relative_to(self._out).as_posix() for name, path in files.items()}
            content = {"schema": _SCHEMA, "key": key, "answer": prediction.to_json(), "files": names}
            write_json(record, content)
        return prediction, problem, no_dicom

    def open(self, slide_id: str) -> FeatureFile:
        """The features of a slide."""
        return open_features_file(self._features / f"{slide_id}.h5")

    def load(
        self, file: FeatureFile, slide_id: str
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64] | None]:
        """What the models take of a slide: its tiles and their corners, or the vector of a slide encoder."""
        features, encoder = self._source.load(slide_id), self._slide_encoder
        if encoder is None:
            return features, file.coords
        edge = float(file.attrs.get("tile_size_level0", 0))
        return stored_vector(encoder, features, file.coords, edge), None

    def retire(self, slide_id: str, key: Mapping[str, Any] | None = None) -> None:
        """Takes away an earlier prediction; that of another file, or by another model, goes to ``history/``.

        Args:
            slide_id: The slide.
            key: What its new prediction is made of; None = it has none.
        """
        record = self._out / "slides" / f"{slide_id}.json"
        try:
            content = parse_json(record.read_text(encoding="utf-8"))
            before, names = content["key"], list(content["files"].values())
            same = key is not None and all(before[name] == key[name] for name in ("model", "slide"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a record of nothing
            record.unlink(missing_ok=True)
            return
        if not same:
            # Named after the time of the prediction: a move that was cut off is finished by the next one.
            predicted = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(record.stat().st_mtime))
            kept = self._out / "history" / f"{slide_id}.{predicted}"
            for name in names:
                if name.startswith(f"{RESULT_FOLDERS[True]}/"):  # the patient stays in that folder
                    (self._out / name).unlink(missing_ok=True)
                    continue
                (kept / name).parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    (self._out / name).replace(kept / name)
            page = kept / "slides" / f"{slide_id}.html"
            if page.is_file():
                text = page.read_text(encoding="utf-8").replace(f'"{_REPORT}"', f'"../../{_REPORT}"')
                write_text(page, text)
            write_json(ensure_folder(kept / "slides") / record.name, content)
        record.unlink()

    def _explain(self, prediction: SlidePrediction, tiles: TileValues) -> dict[str, Path]:
        """Writes the tiles for QuPath, heatmaps and the page; what each shows → file."""
        config, slide_id = self._config, prediction.slide_id
        files: dict[str, Path] = {}
        path = self._files(slide_id)
        if config.geojson:
            files["geojson"] = self._out / "attention" / f"{slide_id}.geojson"
            with open_slide(path, compare_levels=False) as slide:
                origin = slide.origin
            write_tiles_geojson(
                files["geojson"],
                tiles,
                coloured_by=self._layers(prediction)[0],
                scale=config.scale,
                origin=origin,
            )
        if config.heatmaps:
            with open_slide(path) as slide:
                pictures = write_heatmaps(
                    self._out / "heatmaps", tiles, slide,
                    layers=self._layers(prediction), scales=(config.scale,),
                    top=config.top,
                )  # fmt: skip
            files["page"] = self._out / "slides" / f"{slide_id}.html"
            titles = {n: n if n.startswith("top") else f"{n}, {config.scale} scale" for n in pictures}
            shown = {titles[name]: path for name, path in pictures.items()}
            write_slide_page(files["page"], prediction, self._bundle, shown, back=_REPORT)
            files |= pictures
        return files

    def fingerprint(self, slide_id: str) -> str:
        """Fingerprint of a slide's content; empty where it couldn't be read."""
        record = self._slides.get(slide_id)
        return record.fingerprint if record else ""

    def _layers(self, prediction: SlidePrediction) -> tuple[str, ...]:
        evidence = f"evidence {prediction.prediction}"
        return ("attention", evidence) if self._bundle.ensemble.has_attention else (evidence,)

    def _write_dicom(self, prediction: SlidePrediction, tiles: TileValues) -> dict[str, Path]:
        settings = self._config.dicom
        source = DicomSource.read(self._files(prediction.slide_id), with_patient=settings.patient)
        return write_dicom_results(self._out, source, tiles, prediction, self._bundle, with_map=settings.map)

    def _files(self, slide_id: str) -> Path | tuple[Path, ...]:
        return self._slides[slide_id].files(self._config.slides)

    def _key(self, file: FeatureFile, case_id: str) -> dict[str, Any]:
        return {
            "model": self._digest,
            "features": str(file.attrs.get("sha256", "")),
            "slide": str(file.attrs.get("slide_fingerprint", "")),
            "rules": rules(self._config),
            "explanations": explanation_settings(self._config),
            "case_id": case_id,
        }

    def _kept(self, record: Path, key: Mapping[str, Any]) -> SlidePrediction | None:
        try:
            content = parse_json(record.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA or content["key"] != key:
                return None
            if not all((self._out / name).is_file() for name in content["files"].values()):
                return None
            return SlidePrediction.from_json(content["answer"]).by(self._bundle)
        except (OSError, ValueError, KeyError, TypeError):
            return None
