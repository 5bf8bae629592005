"""The extraction job: several resolutions, annotations, artefacts, stain, and what its folder then holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.extraction.conftest import write_slide
from tests.tissue.test_other_stains import ORDINARY, SPECIAL, drawn
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import IdentityConflictError, InputError
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.extraction.known_failures import read_known_failures
from wsi_ncmi.extraction.ledger import read_journal, read_ledger
from wsi_ncmi.features import open_features_file, verify_folder
from wsi_ncmi.features.stain import StainConfig
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import ArtifactConfig
from wsi_ncmi.workflows import extract


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number in range(2):
        write_slide(folder / f"s{number}.tif", number)
    return folder


@pytest.fixture
def config_of(slides: Path, tmp_path: Path):
    def make(**changes: object) -> ExtractConfig:
        plain = ExtractConfig(
            slides=slides,
            out=tmp_path / "out",
            grid=GridConfig(mpp=0.5, tile_px=64),
            extraction=ExecutionConfig(workers=1),
        )
        return replace(plain, **changes)

    return make


def outline(path: Path, name: str = "exclude") -> None:
    ring = [[0, 0], [1024, 0], [1024, 224], [0, 224], [0, 0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": name}},
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(feature))


def test_several_resolutions_are_several_files_of_one_set(config_of, tmp_path: Path) -> None:
    result = extract(config_of(further_mpp=(1.0, 2.0)))
    out = tmp_path / "out"
    assert result.exit_code == 0
    assert sorted(path.name for path in (out / "features").iterdir()) == [
        "descriptor", "descriptor@1um", "descriptor@2um",
    ]  # fmt: skip
    for name, mpp in (("descriptor", 0.5), ("descriptor@1um", 1.0), ("descriptor@2um", 2.0)):
        file = open_features_file(out / "features" / name / "s0.h5")
        assert file.attrs["mpp_target"] == mpp
        assert file.attrs["tile_size_level0"] == pytest.approx(64 * mpp / 0.5)
    assert all(verdict.ok for verdict in verify_folder(out))
    assert len(verify_folder(out)) == 6
    for name in ("", "@1um", "@2um"):
        rows = read_ledger(out / f"ledger{name}.csv")
        assert [row.slide_id for row in rows] == ["s0", "s1"]
        assert {row.features_set for row in rows} == {name.removeprefix("@")}
        assert (out / f"contact_sheet{name}.html").is_file()
        assert (out / f"thumbnails{name}" / "s0.jpg").is_file()
        assert result.files[f"contact_sheet{name}"].is_file()
    assert len(read_journal(out / "ledger.jsonl")) == 6
    assert len(list((out / "tissue").iterdir())) == 2
    # Each set is resumed by itself, and one that comes later costs the others nothing.
    again = extract(config_of(further_mpp=(1.0, 2.0, 3.0)))
    assert again.notes[0].startswith("2 slides done, 6 done before")
    # Training takes the set that it is given.
    assert open_bag_source(result.files["features@1um"]).slide_ids == ("s0", "s1")


def test_the_main_set_is_the_one_of_a_single_resolution(config_of, tmp_path: Path) -> None:
    extract(config_of())
    file = tmp_path / "out/features/descriptor/s0.h5"
    before = (file.stat().st_ino, file.stat().st_mtime_ns)
    extract(config_of(further_mpp=(1.0,)))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
    with pytest.raises(IdentityConflictError, match=r"0\.5 there, 1\.0 here"):
        extract(config_of(grid=GridConfig(mpp=1.0, tile_px=64)))


@pytest.mark.parametrize("further", [(0.5,), (1.0, 1.0)])
def test_a_resolution_twice_is_refused(config_of, tmp_path: Path, further: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="asked for twice"):
        extract(config_of(further_mpp=further))
    assert not (tmp_path / "out").exists()


def test_annotations_change_their_slide_only(config_of, tmp_path: Path) -> None:
    outline(tmp_path / "drawn" / "s0.geojson")
    result = extract(config_of(annotations=tmp_path / "drawn"))
    with_file, without = read_ledger(result.files["ledger"])
    assert with_file.reason == "the tissue excludes 1 area drawn by hand"
    assert without.reason.startswith("it has no annotation file")
    files = [open_features_file(tmp_path / "out/features/descriptor" / f"s{i}.h5") for i in range(2)]
    assert files[0].coords[:, 1].min() > 128 >= files[1].coords[:, 1].min()
    assert len(files[0].attrs["annotations"]) == 64
    assert files[1].attrs["annotations"] == "none"
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["config"]["annotations"] == "drawn"


def test_bad_annotations_fail_their_slide_in_one_sentence(config_of, tmp_path: Path) -> None:
    outline(tmp_path / "drawn" / "s0.geojson")
    (tmp_path / "drawn" / "s1.xml").write_text("<ASAP_Annotations><broken")
    result = extract(config_of(annotations=tmp_path / "drawn"))
    assert result.exit_code == 1
    (failure,) = result.failures
    assert failure.startswith("s1: s1.xml can't be read")
    assert "\n" not in failure
    outline(tmp_path / "drawn" / "s1.geojson")
    (failure,) = extract(config_of(annotations=tmp_path / "drawn")).failures
    assert "two annotation files" in failure


def test_a_wrong_annotation_folder_starts_nothing(config_of, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="isn't there; check --annotations"):
        extract(config_of(annotations=tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"No file in .*empty is named after one of the 2 slides, such as s0"
    ):
        extract(config_of(annotations=tmp_path / "empty"))
    assert not (tmp_path / "out" / "features").exists()


def test_dropped_tiles_are_told(config_of, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        "wsi_ncmi.extraction.artifact_filter.tile_blur", lambda pixels, mpp: np.ones(len(pixels), np.float32)
    )
    result = extract(config_of(artifacts=ArtifactConfig(rule="drop")))
    rows = read_ledger(result.files["ledger"])
    assert all(row.tiles == 0 and row.artifact_tiles >= 9 for row in rows)
    assert result.notes[0].endswith(
        f"0 tiles, {sum(row.artifact_tiles for row in rows)} dropped for artefacts."
    )
    assert '"rule": "drop"' in (tmp_path / "out/run.json").read_text()


def test_special_stains_are_told_in_the_ledger_and_at_the_end(config_of, tmp_path: Path) -> None:
    folder = tmp_path / "stained"
    folder.mkdir()
    special = ("masson", "giemsa", "silver")
    for stain in (*special, "h&e", "pas"):
        picture = drawn((SPECIAL | ORDINARY)[stain]).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(
            folder / f"{stain}.tif", picture, tile=(256, 256), photometric="rgb", compression="deflate",
            metadata=None, resolution=(2500, 2500), resolutionunit="CENTIMETER",
        )  # fmt: skip
    result = extract(config_of(slides=folder, grid=GridConfig(mpp=4, tile_px=64)))
    rows = {row.slide_id: row.reason for row in read_ledger(result.files["ledger"])}
    assert {slide_id for slide_id, reason in rows.items() if "tissue.method=otsu" in reason} == set(special)
    assert result.notes[1].startswith(
        "Much of what is dense on 3 slides has no colour of H&E and was left out"
    )
    assert "--set tissue.method=otsu" in result.notes[1]


def test_the_reference_of_a_stain_leaves_its_hash_only(config_of, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.clip(np.array([180, 90, 150]) + rng.normal(0, 25, (128, 128, 3)), 0, 230).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "secret_reference.png")
    stain = StainConfig(method="reinhard", reference=tmp_path / "secret_reference.png")
    assert extract(config_of(stain=stain)).exit_code == 0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert b"secret_reference" not in path.read_bytes(), path
    assert "sha256:" in (tmp_path / "out/run.json").read_text()
    with pytest.raises(InputError, match="can't be read as an image"):
        extract(config_of(stain=StainConfig(method="reinhard", reference=tmp_path / "none.png")))


def test_earlier_rows_stay_on_ledger_and_sheet(config_of, slides: Path, tmp_path: Path) -> None:
    extract(config_of())
    (tmp_path / "one.csv").write_text("slide_id\ns1\n")
    extract(config_of(only=tmp_path / "one.csv"))
    rows = read_ledger(tmp_path / "out/ledger.csv")
    assert [(row.slide_id, row.status) for row in rows] == [("s0", "done"), ("s1", "skipped")]
    assert (tmp_path / "out/contact_sheet.html").read_text().count("<article") == 2


def test_known_failures_of_two_reasons_are_refused(tmp_path: Path) -> None:
    listed = tmp_path / "known.csv"
    listed.write_text("slide_id,reason\na,x\na.svs,x\nb,\n")
    assert read_known_failures(listed) == {"a": "x", "b": ""}
    listed.write_text("slide_id,reason\na,x\na.svs,y\n")
    with pytest.raises(InputError, match=r"row 3.*'a\.svs'.*before with another reason"):
        read_known_failures(listed)


def test_known_failures_stay_in_the_ledger_and_do_not_count(config_of, slides: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "good.tif").write_bytes((slides / "s0.tif").read_bytes())
    for name in ("bad", "worse"):
        (folder / f"{name}.svs").write_bytes(name.encode() * 400)
    assert len(extract(config_of(slides=folder)).failures) == 2
    listed = tmp_path / "known.csv"
    listed.write_text("slide_id,reason\nbad.svs,\ngood,\nworse,another fault\nabsent,\n")
    result = extract(config_of(slides=folder, known_failures=listed))
    assert [failure.split(":")[0] for failure in result.failures] == ["worse"]
    rows = {row.slide_id: row for row in read_ledger(tmp_path / "out" / "ledger.csv")}
    assert rows["bad"].status == "failed"
    assert rows["bad"].reason.startswith("known failure: ")
    assert not rows["worse"].reason.startswith("known")
    told = "\n".join(result.notes)
    assert "1 failed as known" in told
    assert "absent is listed as a known failure and isn't among the slides" in told
    assert "good is listed as a known failure and was done" in told
    assert "worse failed otherwise than the list says (another fault)" in told
    # The ledger itself is such a list: its failed rows, for the reasons that it names.
    listed.write_bytes((tmp_path / "out" / "ledger.csv").read_bytes())
    again = extract(config_of(slides=folder, known_failures=listed))
    assert (again.failures, again.exit_code) == ((), 0)
    assert len(extract(config_of(slides=folder)).failures) == 2


@pytest.mark.parametrize("text", [None, "name\nbad\n"])
def test_a_list_of_known_failures_that_is_none_stops_the_job_first(
    config_of, tmp_path: Path, text: str | None
) -> None:
    listed = tmp_path / "known.csv"
    if text is not None:
        listed.write_text(text)
    with pytest.raises(InputError, match=r"known\.csv"):
        extract(config_of(known_failures=listed))
    assert not (tmp_path / "out").exists()
