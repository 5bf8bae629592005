"""The answer of each slide with its explanations on disk; what is there for the same input stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.core.files import ensure_folder, write_json
from wsi_ncmi.features import FeatureFile, open_features_file
from wsi_ncmi.prediction import ModelBundle
from wsi_ncmi.prediction.answer import NO_TILES, AnswerRules, SlideAnswer, answer_slide, no_answer
from wsi_ncmi.prediction.pages.slide import Picture, write_slide_page
from wsi_ncmi.reporting.heatmaps import TileValues, write_tiles_geojson
from wsi_ncmi.slides import open_slide, read_slides_csv
from wsi_ncmi.workflows.explained_tiles import tile_values_of
from wsi_ncmi.workflows.heatmap_files import write_heatmaps
from wsi_ncmi.workflows.training_slides import facts_of

__all__ = ["Explanations", "SlideAnswers"]

_SCHEMA = "wsi-ncmi-slide-answer/1"


@dataclass(frozen=True)
class Explanations:
    """What is made of a slide besides its answer.

    Attributes:
        heatmaps: Pictures of attention and of the evidence for the predicted class, and the slide's page.
        scale: Colours by ``percentile`` or ``absolute``.
        top: Tiles in the gallery; 0 = no gallery.
        geojson: Tiles with attention and evidence for QuPath.
    """

    heatmaps: bool = True
    scale: Literal["percentile", "absolute"] = "percentile"
    top: int = 12
    geojson: bool = True


class SlideAnswers:
    """Makes answers, or takes those that an earlier run of the same model on the same features left.

    Args:
        bundle: The model.
        features: Folder of feature files.
        slides: ``slides.csv`` of the extraction.
        root: Slide folder (or slide) that its paths are relative to.
        out: Output folder.
        rules: When there is no answer.
        explanations: What is made besides.
        timed: Measures the stages.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        features: Path,
        slides: Path,
        root: Path,
        out: Path,
        rules: AnswerRules,
        explanations: Explanations,
        timed: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._bundle, self._features, self._root, self._out = bundle, features, root, out
        self._rules, self._explanations, self._timed = rules, explanations, timed
        self._paths = {record.slide_id: record.path for record in read_slides_csv(slides)}
        self._digest = bundle.digest
        ensure_folder(out / "slides")
        for name in ("attention", "heatmaps"):
            ensure_folder(out / name)

    @cached_property
    def _source(self) -> Any:
        return open_bag_source(self._features)

    def answer(self, slide_id: str, case_id: str = "") -> tuple[SlideAnswer, str]:
        """The answer of one slide, and one sentence where something of it failed (else empty).

        Args:
            slide_id: The slide; its features are there.
            case_id: Its patient, where known.
        """
        try:
            file = open_features_file(self._features / f"{slide_id}.h5")
            if file.n_tiles == 0:
                return no_answer(slide_id, NO_TILES), ""
            key = self._key(file, case_id)
            record = self._out / "slides" / f"{slide_id}.json"
            kept = self._kept(record, key)
            if kept is not None:
                return kept, ""
            record.unlink(missing_ok=True)
            with self._timed("prediction"):
                features = self._source.load(slide_id)
                answer, found = answer_slide(
                    self._bundle, slide_id, features, facts_of(file), self._rules, file.coords
                )
                evidence = None
                if self._explanations.heatmaps or self._explanations.geojson:
                    evidence = self._bundle.ensemble.tile_probabilities(features)
        except InputError as error:
            return no_answer(slide_id, str(error)), str(error)
        answer = replace(answer, case_id=case_id)
        problem, files = "", {}
        if evidence is not None:
            tiles = tile_values_of(file, found.attention, evidence, self._bundle.classes)
            with self._timed("heatmaps"):
                try:
                    files = self._geojson(slide_id, tiles) | self._explain(answer, tiles)
                except SlideError as error:
                    problem = f"no heatmap ({error})"
        content = {"schema": _SCHEMA, "key": key, "answer": answer.to_json(), "files": files}
        if not problem:  # what is missing is made by the next run
            write_json(record, content)
        return answer, problem

    def _geojson(self, slide_id: str, tiles: TileValues) -> dict[str, str]:
        if not self._explanations.geojson:
            return {}
        path = self._out / "attention" / f"{slide_id}.geojson"
        write_tiles_geojson(path, tiles, coloured_by="attention", scale=self._explanations.scale)
        return {"geojson": path.relative_to(self._out).as_posix()}

    def _explain(self, answer: SlideAnswer, tiles: TileValues) -> dict[str, str]:
        if not self._explanations.heatmaps:
            return {}
        path = self._root if self._root.is_file() else self._root / self._paths[answer.slide_id]
        scale = self._explanations.scale
        with open_slide(path) as slide:
            written = write_heatmaps(
                self._out / "heatmaps", tiles, slide, layers=("attention", f"evidence {answer.prediction}"),
                scales=(scale,), top=self._explanations.top,
            )  # fmt: skip
        page = self._out / "slides" / f"{answer.slide_id}.html"
        titles = {name: name if name.startswith("top") else f"{name}, {scale} scale" for name in written}
        write_slide_page(
            page, answer, self._bundle, [Picture(titles[name], file) for name, file in written.items()],
            back="../report.html",
        )  # fmt: skip
        return {
            "page": page.relative_to(self._out).as_posix(),
            **{name: file.relative_to(self._out).as_posix() for name, file in written.items()},
        }

    def _key(self, file: FeatureFile, case_id: str) -> dict[str, Any]:
        return {
            "model": self._digest,
            "features": str(file.attrs.get("sha256", "")),
            "slide": str(file.attrs.get("slide_fingerprint", "")),
            "rules": asdict(self._rules),
            "explanations": asdict(self._explanations),
            "case_id": case_id,
        }

    def _kept(self, record: Path, key: Mapping[str, Any]) -> SlideAnswer | None:
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA or content["key"] != key:
                return None
            if not all((self._out / name).is_file() for name in content["files"].values()):
                return None
            return SlideAnswer.from_json(content["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
