"""``wsi-ncmi audit`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.cohorts.test_near_duplicates import jpeg, piece_of_tissue
from tests.features.interchange import makers
from wsi_ncmi.cli.app import app
from wsi_ncmi.slides import SlideRecord, write_slides_csv

IDS = [f"s{i:02}" for i in range(24)]


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    rows = [f"{s},{'xy'[i // 2 % 2]},p{i // 2}" for i, s in enumerate(IDS)]
    (tmp_path / "labels.csv").write_text("\n".join(["slide_id,label,case_id", *rows]) + "\n")
    code, _, _ = call("split", tmp_path / "labels.csv", "--out", tmp_path / "splits.json", "--folds", 3)
    assert code == 0
    return tmp_path


def audit(cohort: Path, *more: object, splits: str = "splits.json") -> tuple[int, dict]:
    code, out, err = call("audit", cohort / splits, "--labels", cohort / "labels.csv", "--json", *more)
    assert not err or code == 2, err
    return code, json.loads(out)


def parts(cohort: Path) -> dict:
    return json.loads((cohort / "splits.json").read_text())["folds"][0]


def inventory(cohort: Path, changes: dict[str, dict]) -> Path:
    records = [
        SlideRecord(**{
            "slide_id": s, "path": f"{s}.svs", "reader": "r", "vendor": "v", "width_px": 9, "height_px": 9,
            "n_levels": 1, "mpp_x": 0.5, "mpp_y": 0.5, "mpp_source": "m", "fingerprint": f"f{s}", "size_bytes": 1,
            **changes.get(s, {}),
        })
        for s in IDS
    ]  # fmt: skip
    write_slides_csv(records, cohort / "slides.csv")
    return cohort / "slides.csv"


def test_a_clean_split_is_exit_code_0_and_says_what_it_could_not_see(cohort: Path) -> None:
    code, found = audit(cohort)
    assert code == 0
    assert found["passed"]
    assert found["leaks"] == found["labels"] == []
    assert found["compared"]["patient"] == 24
    assert any("Copies of slides were not looked for" in note for note in found["notes"])
    code, found = audit(cohort, "--slides", inventory(cohort, {}))
    assert (code, found["compared"]["file content"], found["compared"]["file name"]) == (0, 24, 24)


def test_a_copy_by_the_inventory(cohort: Path) -> None:
    a, b = parts(cohort)["train"][0], parts(cohort)["test"][0]
    code, found = audit(cohort, "--slides", inventory(cohort, {b: {"fingerprint": f"f{a}"}}))
    assert code == 1
    assert {leak["kind"] for leak in found["leaks"]} == {"content"}
    code, out, _ = call(
        "audit", cohort / "splits.json", "--labels", cohort / "labels.csv", "--slides", cohort / "slides.csv"
    )
    assert code == 1
    assert out.startswith("LEAK   splits  content")
    assert out.rstrip().endswith("NOT fit for training.")


def test_one_name_in_two_folders_by_the_inventory(cohort: Path) -> None:
    a, b = parts(cohort)["train"][0], parts(cohort)["test"][0]
    places = {a: {"path": "old/x.svs", "fingerprint": ""}, b: {"path": "new/x.svs"}}
    code, found = audit(cohort, "--slides", inventory(cohort, places))
    assert code == 1
    assert {leak["kind"] for leak in found["leaks"]} == {"name"}


def test_a_near_copy_by_thumbnails(cohort: Path) -> None:
    a, b = parts(cohort)["train"][0], parts(cohort)["test"][0]
    pictures = {s: piece_of_tissue(i, 150, 200) for i, s in enumerate(IDS)}
    (cohort / "thumbnails").mkdir()
    for s, pixels in pictures.items():
        Image.fromarray(pixels).save(cohort / "thumbnails" / f"{s}.jpg", quality=90)
    code, found = audit(cohort, "--thumbnails", cohort / "thumbnails")
    assert (code, found["leaks"], found["compared"]["thumbnail"]) == (0, [], 24)
    Image.fromarray(jpeg(np.rot90(pictures[a]), 60)).save(cohort / "thumbnails" / f"{b}.jpg")
    (cohort / "thumbnails" / "broken.png").write_text("x")
    code, found = audit(cohort, "--thumbnails", cohort / "thumbnails")
    assert code == 1
    assert {leak["kind"] for leak in found["leaks"]} == {"lookalike"}
    assert any("thumbnail of broken" in note for note in found["notes"])


def test_a_copy_by_features_of_another_tool(cohort: Path) -> None:
    a, b = parts(cohort)["train"][0], parts(cohort)["test"][0]
    for i, s in enumerate(IDS):
        makers.clam(cohort / "clam", s, 5, 0 if s in (a, b) else i + 1)
    code, found = audit(cohort, "--features", cohort / "clam")
    assert (code, found["compared"]["features"]) == (1, 24)
    assert {leak["kind"] for leak in found["leaks"]} == {"content"}


def test_faults_of_the_labels_are_rows(cohort: Path) -> None:
    with (cohort / "labels.csv").open("a") as handle:
        handle.write("s00,y,p0\nnew,x,\n")
    code, found = audit(cohort)
    assert code == 1
    assert [(row["line"], row["kind"]) for row in found["labels"]] == [(26, "conflict"), (27, "empty")]


def test_a_patient_in_two_parts_of_a_clam_folder(cohort: Path) -> None:
    (cohort / "clam_splits").mkdir()
    (cohort / "clam_splits" / "splits_0.csv").write_text(",train,val,test\n0,s00,s04,s08\n1,s02,s06,s01\n")
    code, found = audit(cohort, splits="clam_splits")
    assert code == 1
    assert ("patient", "p0") in {(leak["kind"], leak["what"]) for leak in found["leaks"]}


def test_help_has_an_example() -> None:
    code, out, _ = call("audit", "--help")
    assert code == 0
    assert "Example: wsi-ncmi audit" in " ".join(out.split())


def test_training_refuses_a_copy_of_a_slide_in_another_part(cohort: Path) -> None:
    """The features say which slide they were made from: nobody has to ask for this audit."""
    a, b = parts(cohort)["train"][0], parts(cohort)["test"][0]
    folder = cohort / "features"
    for i, s in enumerate(IDS):
        makers.ours(folder, s, 5, i)
        with h5py.File(folder / f"{s}.h5", "r+") as handle:
            handle.attrs["slide_fingerprint"] = "same" if s in (a, b) else f"f{i}"
    code, found = audit(cohort, "--features", folder)
    assert (code, found["compared"]["file content"]) == (1, 24)
    arguments = (
        "train",
        "--features",
        folder,
        "--labels",
        cohort / "labels.csv",
        "--splits",
        cohort / "splits.json",
    )
    code, _, err = call(*arguments, "--out", cohort / "run")
    assert code == 2
    assert "The same content" in err
    assert "--allow-leak" in err
    assert not (cohort / "run" / "report.html").exists()


def test_what_can_not_be_read_is_exit_code_2(cohort: Path) -> None:
    for more in (
        ("--slides", cohort / "nowhere.csv"),
        ("--thumbnails", cohort),
        ("--features", cohort / "nowhere"),
    ):
        code, _, err = call("audit", cohort / "splits.json", "--labels", cohort / "labels.csv", *more)
        assert code == 2
        assert len(err.strip().splitlines()) == 1


@pytest.mark.real_data
def test_clam_example_split(real_data: Path) -> None:
    labels = real_data / "labels"
    for name in ("clam_splits_example.csv", "clam_splits_bool_example.csv"):
        code, out, _ = call(
            "audit", labels / name, "--labels", f"clam:{labels}/clam_labels_example.csv", "--json"
        )
        found = json.loads(out)
        assert code == 0  # the authors drew it by patient
        assert found["counts"] == {"left_out": 1}
        assert found["folds"] == 1
        assert found["compared"]["patient"] == 298


def test_of_many_leaks_the_first_are_told_and_how_many_more(cohort: Path) -> None:
    content = json.loads((cohort / "splits.json").read_text())
    for fold in content["folds"]:
        everything = sorted(fold["train"] + fold["validation"] + fold["test"])
        fold["train"], fold["validation"], fold["test"] = everything[::2], everything[1::4], everything[3::4]
    (cohort / "splits.json").write_text(json.dumps(content))
    code, out, _ = call("audit", cohort / "splits.json", "--labels", cohort / "labels.csv")
    assert code == 1
    lines = out.splitlines()
    assert len([line for line in lines if line.startswith(("LEAK", "FAULT", "note"))]) == 10
    found = audit(cohort)[1]
    assert f"… and {len(found['labels']) + len(found['leaks']) - 10} more (all with --json)." in lines
