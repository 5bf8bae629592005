from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.provenance import collect_provenance
from wsi_ncmi.metrics import compare_paired, evaluate_predictions
from wsi_ncmi.reporting import (
    FlowStep,
    ReportInput,
    SlidePicture,
    best_and_worst,
    render_report,
    write_report,
)

ALWAYS = {"roc", "pr", "calibration", "selective"}
VOID = {"meta", "br", "img", "link", "input", "hr", "source"}


class Page(HTMLParser):
    """Tags, identifiers and text of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.script: dict[str, str] = {}
        self._current = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if tag == "script":
            self._current = values.get("id", f"script-{len(self.script)}")
            self.script[self._current] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open, f"closing {tag} without an opening one"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script[self._current] += data
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [values for name, values in self.tags if name == tag]

    @property
    def ids(self):
        return [values["id"] for _, values in self.tags if "id" in values]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def figures(self):
        return {figure["key"]: figure for figure in json.loads(self.script["figures"])}


@pytest.fixture(scope="module")
def full(make):
    """An input with everything, and its page."""
    frames = {
        name: make.predictions(skill=skill).assign(loss=name) for name, skill in (("ncmi", 1.6), ("ce", 1.2))
    }
    classes = ("ADI", "TUM", "NORM")
    slide_ids = [f"s{i:03d}" for i in range(48)]
    ledger = pd.DataFrame({"slide_id": slide_ids, "status": "done", "reason": "", "tiles": 4321})
    ledger.loc[48] = ("s900", "failed", "can't read /data/x/s900.svs", 0)
    counts = [
        {
            part: {"slides": 10 + k, "patients": 5, "classes": {}, "centres": {}}
            for part in ("train", "validation", "test")
        }
        for k in range(3)
    ]
    data = ReportInput(
        title="Everything",
        predictions=pd.concat(frames.values()),
        evaluations={
            name: evaluate_predictions(frame, classes, resamples=50) for name, frame in frames.items()
        },
        curves=pd.concat([make.curves(loss="ncmi"), make.curves(loss="ce")]),
        ledger=ledger,
        flow=(
            FlowStep("slides found", 50, beside={"labels without a slide": 2}),
            FlowStep("used", 48, 24, {"no tissue": 2}),
        ),
        splits={"counts": counts, "warnings": ["Fold 1 is small."]},
        comparisons={"ce": compare_paired(frames["ncmi"], frames["ce"], classes)},
        leaks=(),
        config={
            "slides": Path("/data/cohort/slides"),
            "labels": "camelyon17:/data/labels.csv/x",
            "grid": {"mpp": 0.5},
        },
        provenance=collect_provenance(),
        hashes={"labels": "ab12"},
        warnings=("Training was allowed on a split that leaks (--allow-leak).",),
    )
    return data, render_report(data)


def test_every_section_is_there(full):
    page = Page(full[1])
    for section in (
        "headline",
        "metrics",
        "classes",
        "confusion",
        "curves",
        "decisions",
        "learning",
        "centres",
        "slides",
        "cohort",
        "reproduce",
    ):
        assert section in page.ids, section
        assert {"href": f"#{section}"} in page.all("a")
    assert set(page.figures) == ALWAYS | {"learning-f1", "learning-loss", "information"}


def test_headline_says_what_it_is(full):
    data, text = full
    words = Page(text).words
    estimate = data.headline.metrics["macro_f1"]
    assert f"Macro-F1 · ncmi {estimate.value:.3f}" in words
    assert f"95 % CI {estimate.ci_low:.3f}–{estimate.ci_high:.3f}" in words
    assert "48 slides of 24 patients, 3 classes, 3 folds, 2 seeds" in words
    assert "unweighted mean of F1 over all 3 classes" in words
    assert "50 bootstrap resamples of patients" in words


def test_warnings_stand_before_the_numbers_and_once(full):
    text = full[1]
    for sentence in ("--allow-leak", "Fold 1 is small", "Only 24 patients"):
        assert text.count(sentence) == 1
        assert text.index(sentence) < text.index('id="headline"')


def test_numbers_of_every_loss(full):
    data, text = full
    words = Page(text).words
    for evaluation in data.evaluations.values():
        for name in ("macro_f1", "brier", "ncmi"):
            assert f"{evaluation.metrics[name].value:.3f}" in words
    assert f"{data.comparisons['ce'].difference:.3f}".replace("-", "−") in words
    assert words.count("4,321") >= 6  # tiles of the ledger
    assert "s900 failed can't read …/s900.svs" in words
    assert "labels without a slide (2)" in words
    assert "−2 no tissue" in words
    assert "10 (5)" in words


def test_spread_stands_apart_from_the_interval(full):
    data, text = full
    words = Page(text).words
    evaluation = data.headline
    for spread in (evaluation.over_folds["macro_f1"], evaluation.over_seeds["macro_f1"]):
        assert f"{spread.mean:.3f} {spread.sd:.3f}" in words
    estimate = evaluation.metrics["macro_f1"]
    assert f"(BCa) one is {estimate.bca_low:.3f}–{estimate.bca_high:.3f}" in words


def test_decisions_are_those_of_the_evaluation(full):
    data, text = full
    words = Page(text).words
    for points in data.headline.operating_points.values():
        for point in points:
            told = [f"{point['threshold']:.3f}"]
            for share in ("sensitivity", "specificity", "ppv", "npv"):
                value, n = point[share], point[f"{share}_patients"]
                told.append("–" if value is None else f"{value:.3f}")
                if value in (0, 1):  # an exact bound in place of certainty
                    exact = binomtest(int(value * n), n).proportion_ci(method="exact")
                    told.append(f"(≥ {exact.low:.3f})" if value else f"(≤ {exact.high:.3f})")
            assert " ".join(told) in words
    for point in data.headline.selective["points"]:
        row = (
            f"{point['threshold']:.3f} {point['slides']:,.0f} {point['accuracy']:.3f} {point['macro_f1']:.3f}"
        )
        assert row in words
    assert "were chosen on the predictions of the other folds" in words
    found = data.headline.recalibration
    for key in ("ece", "nll", "brier"):
        assert f"{data.headline.metrics[key].value:.3f} {found[key]:.3f}" in words
    one_fold = report_of_one_fold(data)
    assert "chosen on the very slides" in one_fold


def report_of_one_fold(data):
    frame = data.predictions_of("ncmi").assign(fold=0)
    evaluation = evaluate_predictions(frame, data.headline.classes, resamples=50)
    return render_report(ReportInput(title="t", predictions=frame, evaluations={"": evaluation}))


def test_patient_stages_of_camelyon17(make):
    frame = make.predictions(classes=("negative", "itc", "micro", "macro"), patients=20, slides=5)
    data = make.report_input(frame)
    page = Page(render_report(data))
    found = data.headline.staging["kappa_quadratic"]
    assert "stages" in page.ids
    assert f"kappa {found['value']:.3f}" in page.words
    assert "pN0(i+)" in page.words
    assert "not those of the challenge" not in page.words
    fewer = make.report_input(make.predictions(classes=("negative", "itc", "micro", "macro"), slides=4))
    assert "not those of the challenge" in Page(render_report(fewer)).words


def test_pictures_stand_by_the_slides_that_have_them(make):
    frame = make.predictions()
    evaluation = make.report_input(frame).headline
    worst, best, _ = best_and_worst(frame, evaluation)
    picture = SlidePicture(
        "data:image/webp;base64,AAAA",
        "data:image/webp;base64,BBBB",
        36,
        20,
        "the slide",
        "its attention",
        "7 tiles.",
    )
    data = make.report_input(
        frame, pictures={worst[0].slide_id: picture, best[0].slide_id: picture}, attention="1/N"
    )
    page = Page(render_report(data))
    images = page.all("img")
    assert [image["alt"] for image in images] == ["the slide", "its attention"] * 2
    assert {image["src"] for image in images} == {picture.slide, picture.attention}
    assert f"{worst[0].label} taken for {worst[0].prediction}, p " in page.words
    assert f"Most confidently wrong, 1 of {len(worst)}." in page.words
    assert "rank of attention (1/N)" in page.words
    assert Page(render_report(make.report_input(frame))).all("img") == []


def test_leak_audit_says_what_it_compared(make):
    data = make.report_input(
        leaks=(),
        compared={"patient": 48, "features": 0, "thumbnail": 40},
        audit_notes=("Two were not looked at.",),
    )
    words = Page(render_report(data)).words
    assert "Fold 0: centre x is missing." not in words
    told = replace(
        data, leaks=("Fold 1: Patient p is in train, test.",), audit_remarks=("Fold 0: centre x is missing.",)
    )
    more = Page(render_report(told)).words
    assert "Fold 1: Patient p is in train, test." in more
    assert "No leak found" not in more
    assert "Fold 0: centre x is missing." in more
    assert "No leak found" in words
    assert "Compared by patient (48 slides), thumbnail (40 slides). Two were not looked at." in words


def test_nothing_is_loaded_from_elsewhere(full):
    text = full[1]
    page = Page(text)
    for tag, values in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert "src" not in values
        assert values.get("href", "#").startswith("#")
    loads = r"https?://|@import|url\((?!#)|fetch\(|XMLHttp|import\("
    assert not re.search(loads, text)
    policy = next(
        values["content"]
        for values in page.all("meta")
        if values.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_file_is_small(full):
    assert len(full[1].encode()) < 200_000


def test_page_can_be_read_without_eyes_or_mouse(full):
    page = Page(full[1])
    assert len(page.ids) == len(set(page.ids))
    referred = [word for _, values in page.tags for word in values.get("aria-labelledby", "").split()]
    assert set(referred) <= set(page.ids)
    assert {values["href"][1:] for values in page.all("a")} <= set(page.ids)
    plots = [values for _, values in page.tags if values.get("class") == "plot"]
    assert len(plots) == 7
    assert all(values["role"] == "img" and re.search(r"\d", values["aria-label"]) for values in plots)
    assert {values["id"] for values in plots} == {f"plot-{key}" for key in page.figures}
    assert len(page.all("figure")) == len(page.all("figcaption")) == 7
    scrolled = [values for _, values in page.tags if values.get("class") == "scroll"]
    assert all(
        values["tabindex"] == "0" and ("aria-label" in values or "aria-labelledby" in values)
        for values in scrolled
    )
    assert page.all("html") == [{"lang": "en"}]


def test_no_folder_of_this_machine(full):
    for script in Page(full[1]).script.values():
        full_text = full[1].replace(script, "")
    assert "/data/" not in full_text
    assert "…/slides" in full_text
    assert "camelyon17:…/x" in full_text


def test_least_input_has_only_its_sections(make):
    page = Page(render_report(make.report_input(make.predictions(centre=False, seeds=1))))
    for section in ("learning", "centres", "cohort", "reproduce"):
        assert section not in page.ids
        assert {"href": f"#{section}"} not in page.all("a")
    assert set(page.figures) == ALWAYS
    assert "None" not in page.words
    assert "nan" not in page.words.lower().split()


@pytest.mark.parametrize(
    ("missing", "figures"),
    [
        (["val_cmi"], {"learning-f1", "learning-loss"}),
        (["val_macro_f1"], {"learning-loss", "information"}),
        (["val_loss"], {"learning-f1", "learning-loss", "information"}),
        (["train_loss", "val_macro_f1", "val_gamma"], set()),
    ],
)
def test_curves_without_a_column_leave_its_panel_out(make, missing, figures):
    data = make.report_input(curves=make.curves().drop(columns=missing))
    page = Page(render_report(data))
    assert set(page.figures) == ALWAYS | figures
    assert ("learning" in page.ids) == bool(figures)
    empty = make.report_input(curves=make.curves().assign(**dict.fromkeys(missing, np.nan)))
    assert set(Page(render_report(empty)).figures) == ALWAYS | figures


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


def test_hostile_names_stay_text(make):
    frame = make.predictions(classes=("a", HOSTILE))
    frame["slide_id"] = HOSTILE + frame["slide_id"]
    frame["case_id"] = HOSTILE + frame["case_id"]
    frame["centre"] = HOSTILE
    data = make.report_input(
        frame,
        title=HOSTILE,
        curves=make.curves(),
        flow=(FlowStep(HOSTILE, 3, lost={HOSTILE: 1}),),
        leaks=(HOSTILE,),
        ledger=pd.DataFrame({"slide_id": [HOSTILE], "status": ["failed"], "reason": [HOSTILE], "tiles": [0]}),
        config={HOSTILE: HOSTILE},
        provenance={"software": HOSTILE, "packages": {HOSTILE: HOSTILE}},
        hashes={HOSTILE: HOSTILE},
        warnings=(HOSTILE,),
    )
    plain, page = Page(render_report(make.report_input())), Page(render_report(data))
    assert page.all("img") == []
    assert len(page.all("script")) == len(plain.all("script")) == 2
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    assert "49" not in page.words.split()
    assert HOSTILE in page.words


def test_one_class_predicted_only(make):
    frame = make.predictions(classes=("LUAD", "LUSC"), seeds=1)
    frame = frame.assign(prediction="LUAD", p_LUAD=0.7, p_LUSC=0.3)
    page = Page(render_report(make.report_input(frame)))
    assert page.figures["calibration"]["data"][1]["x"] == [0.7]
    assert "LUSC taken for LUAD" in page.words


def test_class_without_slides(make):
    frame = make.predictions()
    frame = frame[frame["label"] != "NORM"]
    page = Page(render_report(make.report_input(frame)))
    assert "Not drawn, because all or none of the slides belong to it: NORM" in page.words


def test_thirty_classes(make):
    frame = make.predictions(classes=tuple(f"subtype {k:02d}" for k in range(30)), patients=60, skill=5)
    text = render_report(make.report_input(frame, curves=make.curves()))
    page = Page(text)
    assert len(text.encode()) < 6_000_000
    legend = [trace for trace in page.figures["roc"]["data"] if trace.get("showlegend", True)]
    assert [trace["name"] for trace in legend] == ["mean of 30 classes"]
    assert len([values for values in page.all("td") if values.get("class", "").startswith("share")]) == 900


def test_written_file_is_the_page(make, tmp_path):
    data = make.report_input()
    write_report(data, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(data)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_input_is_checked(make):
    frame = make.predictions()
    evaluation = make.report_input(frame).headline
    with pytest.raises(InputError, match="at least one evaluation"):
        ReportInput(title="t", predictions=frame, evaluations={})
    with pytest.raises(InputError, match="no rows of the loss 'ce'"):
        ReportInput(
            title="t",
            predictions=frame.assign(loss="ncmi"),
            evaluations={"ncmi": evaluation, "ce": evaluation},
        )
