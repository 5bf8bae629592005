from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wsi_ncmi.synthesis import CENTRES, LESION_CLASSES, SynthesisConfig, label_of_lesion_area, plan_cohort
from wsi_ncmi.synthesis.plan import DRAWN_DIAMETERS_MM, LESION_SCALE, circle_area_mm2, class_counts


@given(st.integers(10, 60), st.integers(2, 7), st.integers(0, 2**32))
def test_from_ten_patients_on_at_least_three_have_each_class(patients: int, slides: int, seed: int) -> None:
    plans = plan_cohort(SynthesisConfig(patients=patients, slides_per_patient=slides, seed=seed))
    for label in LESION_CLASSES:
        assert len({plan.patient for plan in plans if plan.label == label}) >= 3


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 2**32), st.booleans())
def test_every_plan_is_complete(patients: int, slides: int, seed: int, empty: bool) -> None:
    plans = plan_cohort(
        SynthesisConfig(patients=patients, slides_per_patient=slides, seed=seed, include_empty=empty)
    )
    assert len(plans) == patients * slides + empty
    assert len({plan.slide_id for plan in plans}) == len(plans)
    with_tissue = Counter(plan.label for plan in plans if plan.has_tissue)
    assert with_tissue == {k: v for k, v in class_counts(patients * slides).items() if v}
    assert [plan.label for plan in plans if not plan.has_tissue] == ["negative"] * empty
    centre_of = {plan.patient: plan.centre for plan in plans}
    blocks = [centre_of[patient] for patient in range(patients)]
    assert blocks == sorted(blocks)
    if patients % 5 == 0:
        assert set(Counter(blocks).values()) == {patients // 5}


def test_a_large_cohort_has_camelyons_proportions() -> None:
    assert class_counts(500) == {"negative": 320, "itc": 35, "micro": 60, "macro": 85}
    assert class_counts(50) == {"negative": 32, "itc": 4, "micro": 6, "macro": 8}


def test_names_and_extensions_follow_the_centre() -> None:
    plans = plan_cohort(SynthesisConfig())
    assert plans[0].file_name == "patient_000_node_0.svs"
    assert plans[-1].file_name == "patient_009_node_4.tif"
    assert [centre.layout for centre in CENTRES] == ["aperio"] * 3 + ["bigtiff"] * 2
    assert {plan.artefact for plan in plans} == {"", "pen", "fold", "blur"}
    assert {plan.artefact for plan in plan_cohort(SynthesisConfig(artefacts=False))} == {""}


@given(st.integers(1, 400))
def test_slides_decides_the_number_of_slides(slides: int) -> None:
    plans = plan_cohort(SynthesisConfig(slides=slides, include_empty=False))
    assert len(plans) == slides
    assert Counter(p.patient for p in plans).most_common(1)[0][1] <= 5


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError):
        SynthesisConfig(patient=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        SynthesisConfig(patients=0)


def test_class_thresholds_are_the_real_ones_scaled() -> None:
    assert label_of_lesion_area(0.0) == "negative"
    for label, real_mm in (("itc", 0.2), ("micro", 2.0)):
        edge = circle_area_mm2(real_mm / LESION_SCALE)
        assert label_of_lesion_area(edge) == label
        assert label_of_lesion_area(edge * 1.001) == LESION_CLASSES[LESION_CLASSES.index(label) + 1]
    for label, (low, high) in DRAWN_DIAMETERS_MM.items():
        assert {label_of_lesion_area(circle_area_mm2(d)) for d in (low, high)} == {label}
