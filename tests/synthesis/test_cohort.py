from __future__ import annotations

import csv
import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openslide
import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.synthesis import CohortPaths, SynthesisConfig, make_cohort, plan_cohort

OPTIONS = SynthesisConfig(patients=2, slides_per_patient=1, seed=11, faults=True)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Notes:
    """Remembers what the progress was told."""

    def __init__(self) -> None:
        self.total, self.done, self.said = 0.0, 0.0, []

    @contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Any:
        self.total = total
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        self.said.append(note)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortPaths:
    return make_cohort(tmp_path_factory.mktemp("cohort"), OPTIONS)


def test_two_workers_make_the_same_bytes(cohort: CohortPaths, tmp_path: Path) -> None:
    notes = Notes()
    make_cohort(tmp_path, OPTIONS, workers=2, progress=notes)
    assert digests(tmp_path) == digests(cohort.slides.parent)
    assert notes.done == notes.total == 3 + 6


def test_labels_name_every_slide_with_patient_and_centre(cohort: CohortPaths) -> None:
    with cohort.labels.open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["slide_id", "label", "case_id", "centre"]
    by_id = {row["slide_id"]: row for row in rows}
    assert len(by_id) == len(rows) == 9
    for plan in plan_cohort(OPTIONS):
        assert by_id[plan.slide_id]["case_id"] == plan.case_id
        assert by_id[plan.slide_id]["label"] == plan.label
        assert (cohort.slides / plan.file_name).is_file()
        assert (cohort.truth / f"{plan.slide_id}.geojson").is_file()
    assert by_id["patient_001_node_0"]["centre"] == "centre_2"


def test_faults_are_what_they_are_said_to_be(cohort: CohortPaths) -> None:
    folder = cohort.slides
    with openslide.OpenSlide(folder / "fault_no_mpp.svs") as slide:
        assert "openslide.mpp-x" not in slide.properties
        assert "openslide.objective-power" not in slide.properties
        assert slide.properties["tiff.ResolutionUnit"] == "none"
    for name in ("fault_truncated.svs", "fault_text.svs"):
        with pytest.raises(openslide.OpenSlideError):
            openslide.OpenSlide(folder / name)
    original = folder / plan_cohort(OPTIONS)[0].file_name
    assert (folder / "fault_duplicate.svs").read_bytes() == original.read_bytes()
    pair = [folder / scanner / "fault_same_name.svs" for scanner in ("scanner_a", "scanner_b")]
    assert pair[0].read_bytes() != pair[1].read_bytes()
    for path in pair:
        with openslide.OpenSlide(path) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == 0.5


def test_only_what_is_missing_is_made_again(cohort: CohortPaths) -> None:
    before = digests(cohort.slides.parent)
    times = {path: path.stat().st_mtime_ns for path in cohort.slides.rglob("*.svs")}
    lost = cohort.slides / "patient_000_node_1.svs"
    lost.unlink()
    notes = Notes()
    make_cohort(cohort.slides.parent, OPTIONS, progress=notes)
    assert notes.said[:2] == ["already there", "patient_000_node_1"]
    assert digests(cohort.slides.parent) == before
    assert {p: t for p, t in times.items() if p.stat().st_mtime_ns != t}.keys() == {lost}


def test_another_cohort_is_never_overwritten(cohort: CohortPaths) -> None:
    with pytest.raises(InputError, match="other options"):
        make_cohort(cohort.slides.parent, SynthesisConfig(patients=2, slides_per_patient=1, seed=12))


def test_foreign_slides_are_never_mixed_with_synthetic_ones(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "real.svs").write_bytes(b"x")
    with pytest.raises(InputError, match="already holds"):
        make_cohort(tmp_path, OPTIONS)
    with pytest.raises(InputError, match="workers"):
        make_cohort(tmp_path, OPTIONS, workers=0)


def test_a_broken_stamp_is_named(tmp_path: Path) -> None:
    (tmp_path / "synthesis.json").write_text("{")
    with pytest.raises(InputError, match=r"synthesis\.json"):
        make_cohort(tmp_path, OPTIONS)
