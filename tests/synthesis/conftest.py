from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import shape

from wsi_ncmi.synthesis import SlidePlan, make_slide


@dataclass(frozen=True)
class Drawn:
    """One finished slide with its ground truth, read back from the files."""

    plan: SlidePlan
    path: Path
    truth: dict[str, Any]

    def polygons(self, name: str) -> list[Any]:
        return [
            shape(feature["geometry"])
            for feature in self.truth["features"]
            if feature["properties"]["classification"]["name"] == name
        ]


def draw(folder: Path, **changes: Any) -> Drawn:
    values: dict[str, Any] = {
        "patient": 0,
        "index": 0,
        "centre": 1,
        "label": "negative",
        "artefact": "",
        "has_tissue": True,
        "seed": 5,
        "slide_id": "patient_000_node_0",
    }
    plan = SlidePlan(**(values | changes))
    make_slide(plan, folder, folder)
    truth = json.loads((folder / f"{plan.slide_id}.geojson").read_text())
    return Drawn(plan, folder / plan.file_name, truth)


@pytest.fixture(scope="session")
def aperio(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Centre 2: Aperio, 0.46 µm, a macro-metastasis and a pen mark."""
    return draw(tmp_path_factory.mktemp("aperio"), centre=2, label="macro", artefact="pen")


@pytest.fixture(scope="session")
def bigtiff(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Centre 3: BigTIFF, 0.243 µm, isolated tumour cells and a blurred part."""
    return draw(tmp_path_factory.mktemp("bigtiff"), centre=3, label="itc", artefact="blur")
