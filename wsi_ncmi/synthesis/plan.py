"""The slides of a cohort: names, centres, classes with their lesion sizes, artefacts.

TNM: isolated tumour cells (itc) are at most 0.2 mm across, micro-metastases at most 2 mm, macro-metastases
larger. Synthetic slides hold about 2 mm² of tissue instead of 100–300 mm², so every length of a lesion is
scaled down by one constant, ``LESION_SCALE``: itc ≤ 0.1 mm, micro ≤ 1 mm, macro > 1 mm. The length of a
lesion is the diameter of the circle that has its area, which makes the class a function of the area alone:
itc touches 1–4 tiles of 128 µm (never more than half a tile's area), micro covers 2–17 % of the tissue, macro
30–65 %.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from wsi_ncmi.synthesis.artefacts import ARTEFACTS
from wsi_ncmi.synthesis.centres import CENTRES
from wsi_ncmi.synthesis.config import SynthesisConfig

LESION_CLASSES = ("negative", "itc", "micro", "macro")
#: Shares of the 500 CAMELYON-17 training slides, rounded.
CLASS_SHARES = {"negative": 0.64, "itc": 0.07, "micro": 0.12, "macro": 0.17}
#: Real length / synthetic length of every lesion.
LESION_SCALE = 2.0
ITC_MAX_MM = 0.2 / LESION_SCALE
MICRO_MAX_MM = 2.0 / LESION_SCALE
#: Equivalent diameters that are drawn (low, high): clear of the thresholds, so that no slide is a matter of
#: a pixel.
DRAWN_DIAMETERS_MM = {"itc": (0.076, 0.097), "micro": (0.24, 0.62), "macro": (1.04, 1.2)}


def circle_area_mm2(diameter_mm: float) -> float:
    """Area in mm² of the circle with this diameter in mm."""
    return math.pi / 4 * diameter_mm**2


def label_of_lesion_area(area_mm2: float) -> str:
    """The class of a slide whose tumour covers ``area_mm2`` mm² in all.

    Args:
        area_mm2: Total tumour area in mm² of the synthetic slide (not scaled back up).

    Returns:
        One of ``LESION_CLASSES``.
    """
    if area_mm2 <= 0:
        return "negative"
    if area_mm2 <= circle_area_mm2(ITC_MAX_MM):
        return "itc"
    return "micro" if area_mm2 <= circle_area_mm2(MICRO_MAX_MM) else "macro"


_PLAN_STREAM = 0x504C41
_MIN_PATIENTS_A_CLASS = 3
#: Share of the slides with a pen mark; as many have a fold, as many a blurred part.
_ARTEFACT_SHARE = 0.08


@dataclass(frozen=True)
class SlidePlan:
    """One slide to draw.

    Attributes:
        slide_id: ``patient_000_node_0``.
        patient: Number of the patient.
        index: Number of the slide within the patient.
        centre: Index into ``CENTRES``.
        label: Class.
        artefact: ``pen``, ``fold``, ``blur`` or ""; a plan made by hand may also ask for ``border`` and
            for a colour, as in ``pen:red`` and ``border:grey``.
        has_tissue: False for the empty slide.
        seed: Seed of the cohort.
    """

    slide_id: str
    patient: int
    index: int
    centre: int
    label: str
    artefact: str
    has_tissue: bool
    seed: int

    @property
    def case_id(self) -> str:
        """``patient_000``."""
        return f"patient_{self.patient:03d}"

    @property
    def file_name(self) -> str:
        """Name with the extension of the centre's layout."""
        return self.slide_id + CENTRES[self.centre].suffix


def plan_cohort(options: SynthesisConfig) -> tuple[SlidePlan, ...]:
    """Plans all sound slides in the order of their names.

    The slide without tissue, when asked for, is the last one of patient 0.
    """
    counts = options.slide_counts()
    rng = np.random.default_rng(np.random.SeedSequence([options.seed, _PLAN_STREAM]))
    labels = _assign_classes(rng, counts)
    total = sum(counts)
    artefacts = [""] * total
    if options.artefacts:
        each = math.ceil(_ARTEFACT_SHARE * total) if total >= 2 * len(ARTEFACTS) else 0
        places = rng.permutation(total)
        for kind, start in zip(ARTEFACTS, range(0, total, max(each, 1)), strict=False):
            for place in places[start : start + each]:
                artefacts[place] = kind
    plans: list[SlidePlan] = []
    for patient, count in enumerate(counts):
        centre = patient * len(CENTRES) // len(counts)
        for index in range(count):
            at = sum(counts[:patient]) + index
            plans.append(
                SlidePlan(
                    f"patient_{patient:03d}_node_{index}",
                    patient,
                    index,
                    centre,
                    labels[patient][index],
                    artefacts[at],
                    True,
                    options.seed,
                )
            )
        if patient == 0 and options.include_empty:
            plans.append(
                SlidePlan(f"patient_000_node_{count}", 0, count, 0, "negative", "", False, options.seed)
            )
    return tuple(plans)


def class_counts(total: int) -> dict[str, int]:
    """Number of slides of each class out of ``total``: CAMELYON-17's shares, rounded by largest remainder.

    No positive class has fewer than three, or a quarter of the slides where there are fewer than twelve.
    """
    exact = {name: share * total for name, share in CLASS_SHARES.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[: total - sum(counts.values())]:
        counts[name] += 1
    least = min(_MIN_PATIENTS_A_CLASS, total // len(LESION_CLASSES))
    for name in LESION_CLASSES[1:]:
        missing = max(least - counts[name], 0)
        counts[name] += missing
        counts["negative"] -= missing
    return counts


def _assign_classes(rng: np.random.Generator, counts: tuple[int, ...]) -> list[list[str]]:
    """Gives each patient's slides their classes.

    A quarter of the patients has no metastasis. Each positive class first goes to different patients,
    spread over the centres (at least three, where there are as many slides of it), and what is left joins
    patients who have positive nodes already.
    """
    patients = len(counts)
    order = _across_centres(rng, patients)
    positive = order[: max(min(patients, _MIN_PATIENTS_A_CLASS), math.ceil(0.75 * patients))]
    labels = [["negative"] * count for count in counts]
    free = Counter(dict(enumerate(counts)))
    numbers = class_counts(sum(counts))

    def give(patient: int, name: str) -> None:
        slots = [i for i, label in enumerate(labels[patient]) if label == "negative"]
        labels[patient][int(rng.choice(slots))] = name
        free[patient] -= 1

    for turn, name in enumerate(LESION_CLASSES[1:]):
        left = numbers[name]
        spread = min(left, len(positive), max(_MIN_PATIENTS_A_CLASS + 2, math.ceil(0.6 * left)))
        start = turn * len(positive) // 3
        able = [p for p in positive[start:] + positive[:start] if free[p] > 0]
        for patient in able[:spread]:
            give(patient, name)
            left -= 1
        while left > 0:
            open_patients = [p for p in positive if free[p] > 0] or [p for p in order if free[p] > 0]
            give(int(rng.choice(open_patients)), name)
            left -= 1
    return labels


def _across_centres(rng: np.random.Generator, patients: int) -> list[int]:
    """All patients, the centres taking turns."""
    groups: dict[int, list[int]] = {}
    for patient in rng.permutation(patients).tolist():
        groups.setdefault(patient * len(CENTRES) // patients, []).append(patient)
    depth = max(len(members) for members in groups.values())
    turns = [groups[c] for c in rng.permutation(sorted(groups)).tolist()]
    return [members[i] for i in range(depth) for members in turns if i < len(members)]
