"""Predictions of slides and patients, abstention, and the tables of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tests.prediction.models import COLOUR, abstaining, make_bundle, sample, write_run
from wsi_ncmi.prediction import Calibration, ModelBundle
from wsi_ncmi.prediction.ood import OodFlag, SlideProperties
from wsi_ncmi.prediction.outputs import patient_table, slide_table
from wsi_ncmi.prediction.slide_prediction import ABSTAIN, SlidePrediction, no_prediction, predict_slide
from wsi_ncmi.prediction.slide_records import explanation_settings, rules

PROPERTIES = SlideProperties(0.5, COLOUR)
DECIDE_ALWAYS = Calibration(1.0, 0.0, "nothing", 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    run = write_run(tmp_path_factory.mktemp("run") / "ncmi")
    return make_bundle(run, calibration=DECIDE_ALWAYS)


def test_the_probabilities_are_the_calibrated_mean(bundle: ModelBundle) -> None:
    features = sample(3).tiles
    softened = replace(bundle, calibration=Calibration(3.0, 0.0, "x", 1))
    answer, found = predict_slide(softened, "s", features, PROPERTIES, abstaining())
    mean = bundle.ensemble.predict(features).probabilities
    expected = mean ** (1 / 3.0)
    np.testing.assert_allclose(list(answer.probabilities.values()), expected / expected.sum(), rtol=1e-9)
    assert answer.prediction == bundle.classes[int(mean.argmax())]
    assert answer.decision == answer.prediction
    assert answer.tiles == len(features) == len(found.attention)
    assert answer.reason == ""


@pytest.mark.parametrize(("below", "decided"), [(0.0, True), (1.0, False)])
def test_it_abstains_below_the_threshold(bundle: ModelBundle, below: float, decided: bool) -> None:
    answer, _ = predict_slide(bundle, "s", sample(3).tiles, PROPERTIES, abstaining(abstain_below=below))
    own = replace(bundle, calibration=Calibration(1.0, below, "x", 1))
    same, _ = predict_slide(own, "s", sample(3).tiles, PROPERTIES, abstaining())
    assert same == replace(answer, model=own.identity, shown=same.shown)  # of another digest and basis
    assert same.shown[same.prediction] == own.calibration.shown(same.confidence or 0.0, same.prediction)
    assert (answer.decision == answer.prediction) == decided
    assert answer.prediction in bundle.classes  # what it would have said stays there
    if not decided:
        assert answer.decision == ABSTAIN
        assert "below 1.000" in answer.reason


def test_ood_slides_are_abstained_from_or_flagged(bundle: ModelBundle) -> None:
    far = sample(3, shift=5.0).tiles
    held, _ = predict_slide(bundle, "s", far, PROPERTIES, abstaining())
    assert held.decision == ABSTAIN
    assert "unlike the training" in held.reason
    assert held.ood_score is not None
    assert held.ood_score > 1
    told, _ = predict_slide(bundle, "s", far, PROPERTIES, abstaining(ood_threshold=float("inf")))
    assert told.decision == told.prediction
    assert told.flags == held.flags != ()
    highest = max(flag.score for flag in held.flags)
    for threshold, decision in ((highest, ABSTAIN), (highest * 1.01, held.prediction)):
        found, _ = predict_slide(bundle, "s", far, PROPERTIES, abstaining(ood_threshold=threshold))
        assert found.decision == decision
    without, _ = predict_slide(replace(bundle, ood=None), "s", far, PROPERTIES, abstaining())
    assert without.flags == ()
    assert without.ood_score is None


def test_predictions_go_through_json(bundle: ModelBundle) -> None:
    answer, _ = predict_slide(bundle, "s", sample(3, shift=5.0).tiles, PROPERTIES, abstaining())
    assert SlidePrediction.from_json(answer.to_json()) == answer
    assert SlidePrediction.from_json(no_prediction("x", "why").to_json()) == no_prediction("x", "why")


def test_impossible_thresholds_are_refused() -> None:
    for settings in ({"abstain_below": 1.5}, {"ood_threshold": 0.5}):
        with pytest.raises(ValidationError, match="equal to"):
            abstaining(**settings)


def test_records_of_0_1_0_are_known_by_the_same_settings() -> None:
    explained = {"heatmaps": True, "scale": "percentile", "top": 12, "geojson": True}
    assert explanation_settings(abstaining()) == explained
    assert rules(abstaining()) == {"abstain_below": None, "unlike": "abstain"}
    assert rules(abstaining(ood_threshold=float("inf")))["unlike"] == "flag"
    assert rules(abstaining(ood_threshold=2.5))["unlike"] == 2.5


def made(
    slide_id: str, patient: str, p: tuple[float, ...], decision: str = "", **more: object
) -> SlidePrediction:
    classes = ("negative", "itc", "micro", "macro")[: len(p)]
    prediction = classes[int(np.argmax(p))]
    return SlidePrediction(
        slide_id, prediction, decision or prediction, dict(zip(classes, p, strict=True)), max(p),
        dict.fromkeys(classes, 0.0), 1.0, 10, case_id=patient, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_slide_table_follows_the_contract(bundle: ModelBundle) -> None:
    validated = Calibration(slides=3, errors=0, supported={"a": 0.5, "b": 0.5})
    own = replace(bundle, calibration=validated)
    answer, _ = predict_slide(own, "z", sample(3).tiles, PROPERTIES, abstaining())
    broken = no_prediction("broken", "text.svs is no slide")
    table = slide_table([answer, broken], bundle.classes, Calibration())  # shown by the model that answered
    assert list(table)[:8] == ["slide_id", "case_id", "fold", "seed", "label", "prediction", "p_a", "p_b"]
    assert table["slide_id"].tolist() == ["broken", "z"]
    rows = table.set_index("slide_id")
    assert rows.loc["broken", ["p_a", "p_b"]].isna().all()
    assert rows.loc["broken", "reason"] == "text.svs is no slide"
    assert rows.loc["z", ["p_a", "p_b"]].sum() == pytest.approx(1)
    assert list(table)[-2:] == ["shown", "model_digest"]
    assert rows["shown"].to_dict() == {"broken": "", "z": "> 50.0 %"}


def test_a_patient_is_the_mean_of_its_slides() -> None:
    classes = ("negative", "itc")
    slides = [
        made("s1", "p1", (0.9, 0.1)),
        made("s2", "p1", (0.2, 0.8)),
        made("s3", "p2", (0.45, 0.55)),
        made("s4", "", (1, 0)),
    ]
    table = patient_table(slides, classes, Calibration(abstain_below=0.5)).set_index("case_id")
    assert list(table.index) == ["p1", "p2"]
    assert table.loc["p1", "p_negative"] == pytest.approx(0.55)
    assert table.loc["p1", "decision"] == "negative"
    assert table.loc["p2", "decision"] == "itc"
    unsure = patient_table(slides, classes, Calibration(abstain_below=0.6)).set_index("case_id")
    assert unsure.loc["p1", "decision"] == ABSTAIN
    assert unsure.loc["p1", "prediction"] == "negative"


def test_a_patient_whose_slide_has_no_prediction_has_none() -> None:
    classes = ("negative", "itc")
    slides = [made("s1", "p1", (0.9, 0.1)), made("s2", "p1", (0.9, 0.1), decision=ABSTAIN)]
    lost = replace(no_prediction("s4", "broken"), case_id="p2")
    table = patient_table(
        [*slides, made("s3", "p2", (0.9, 0.1)), lost, replace(lost, case_id="p3")],
        classes,
        Calibration(),
    )
    rows = table.set_index("case_id")
    assert rows["decision"].tolist() == [ABSTAIN, ABSTAIN, ""]
    assert rows.loc["p2", "reason"] == "1 of 2 slides have no prediction"
    assert rows.loc["p3", "prediction"] == ""
    assert (rows["slides"].tolist(), rows["answered"].tolist()) == ([2, 2, 1], [1, 1, 0])


@pytest.mark.parametrize(
    ("labels", "stage"), [("nnnnn", "pN0"), ("innnn", "pN0(i+)"), ("minnn", "pN1mi"), ("Mmnnn", "pN1"), ("MMmmn", "pN2")]
)  # fmt: skip
def test_camelyon_patients_are_staged(labels: str, stage: str) -> None:
    classes = ("negative", "itc", "micro", "macro")
    place = {"n": 0, "i": 1, "m": 2, "M": 3}
    slides = [
        made(f"s{i}", "p", tuple(0.97 if k == place[c] else 0.01 for k in range(4)))
        for i, c in enumerate(labels)
    ]
    (row,) = patient_table(slides, classes, Calibration()).to_dict("records")
    assert row["decision"] == row["prediction"] == stage
    assert row["confidence"] == 0.97
    # The stage is no class: it is shown as what its least supported slide supports.
    few = Calibration(
        slides=9, errors=0, supported={"negative": 0.9, "itc": 2 / 3, "micro": 2 / 3, "macro": 2 / 3}
    )
    (shown,) = patient_table(slides, classes, few)["shown"]
    assert shown == ("> 90.0 %" if labels == "nnnnn" else "> 66.6 %")
    held = [replace(slides[0], decision=ABSTAIN), *slides[1:]]
    (row,) = patient_table(held, classes, Calibration()).to_dict("records")
    assert (row["prediction"], row["decision"]) == (stage, ABSTAIN)
    assert row["reason"] == "1 of 5 slides are abstained from"


def test_without_patients_there_is_an_empty_table(tmp_path: Path) -> None:
    table = patient_table([made("s", "", (0.9, 0.1))], ("negative", "itc"), Calibration())
    assert len(table) == 0
    assert "case_id" in table.columns


def test_a_flag_with_two_findings_is_named_once(bundle: ModelBundle) -> None:
    flags = tuple(OodFlag(name, "words", 2.0) for name in ("stain", "stain", "features"))
    answer, _ = predict_slide(bundle, "s", sample(3).tiles, PROPERTIES, abstaining())
    prediction = replace(answer, flags=flags)
    assert prediction.flag_names == ("stain", "features")
    assert list(slide_table([prediction], bundle.classes, bundle.calibration)["ood"]) == ["stain;features"]
    assert len(prediction.to_json()["flags"]) == 3
