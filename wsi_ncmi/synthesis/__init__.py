"""Procedural H&E-like slides: the cohort of the demo and the slides of the tests.

Everything here is drawn, nothing is copied from a patient. The files are real tiled, JPEG-compressed
pyramids, so that the demo and the tests go through the same readers as a hospital's slides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.synthesis.centres import CENTRES as CENTRES
    from wsi_ncmi.synthesis.centres import Centre as Centre
    from wsi_ncmi.synthesis.classes import CLASSES as CLASSES
    from wsi_ncmi.synthesis.classes import LESION_SCALE as LESION_SCALE
    from wsi_ncmi.synthesis.classes import label_of_lesion_area as label_of_lesion_area
    from wsi_ncmi.synthesis.cohort import CohortPaths as CohortPaths
    from wsi_ncmi.synthesis.cohort import make_cohort as make_cohort
    from wsi_ncmi.synthesis.options import SynthesisOptions as SynthesisOptions
    from wsi_ncmi.synthesis.plan import SlidePlan as SlidePlan
    from wsi_ncmi.synthesis.plan import plan_cohort as plan_cohort
    from wsi_ncmi.synthesis.pyramid import write_pyramid as write_pyramid
    from wsi_ncmi.synthesis.slide import make_slide as make_slide
    from wsi_ncmi.synthesis.slide import write_test_slide as write_test_slide

__all__ = [
    "CENTRES",
    "CLASSES",
    "LESION_SCALE",
    "Centre",
    "CohortPaths",
    "SlidePlan",
    "SynthesisOptions",
    "label_of_lesion_area",
    "make_cohort",
    "make_slide",
    "plan_cohort",
    "write_pyramid",
    "write_test_slide",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "CENTRES": "wsi_ncmi.synthesis.centres",
        "CLASSES": "wsi_ncmi.synthesis.classes",
        "LESION_SCALE": "wsi_ncmi.synthesis.classes",
        "Centre": "wsi_ncmi.synthesis.centres",
        "CohortPaths": "wsi_ncmi.synthesis.cohort",
        "SlidePlan": "wsi_ncmi.synthesis.plan",
        "SynthesisOptions": "wsi_ncmi.synthesis.options",
        "label_of_lesion_area": "wsi_ncmi.synthesis.classes",
        "make_cohort": "wsi_ncmi.synthesis.cohort",
        "make_slide": "wsi_ncmi.synthesis.slide",
        "plan_cohort": "wsi_ncmi.synthesis.plan",
        "write_pyramid": "wsi_ncmi.synthesis.pyramid",
        "write_test_slide": "wsi_ncmi.synthesis.slide",
    },
)
