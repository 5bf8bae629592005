"""Faulty slides for ``synth --faults``: what goes wrong in real folders, one of each kind.

Files below ``slides/`` and what a job should say of them:

- ``fault_no_mpp.svs``: no mpp, no objective power, no believable resolution tag. Failed: no scale.
- ``fault_truncated.svs``: a sound slide cut off at 60 %. Failed: can't be opened or read.
- ``fault_text.svs``: plain text under a slide's name. Failed: no slide.
- ``fault_duplicate.svs``: the very bytes of another slide of the cohort. Reported as a duplicate.
- ``scanner_a/fault_same_name.svs`` and ``scanner_b/fault_same_name.svs``: two sound slides of one name.
  Both done, under the ids ``scanner_a__fault_same_name`` and ``scanner_b__fault_same_name``.

All belong to patients of centre 0 and stand in ``labels.csv`` as a user would have them there. The
duplicate is a copy of that patient's own slide with the same label.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.core.files import atomic_path, write_text
from wsi_ncmi.synthesis.plan import SlidePlan
from wsi_ncmi.synthesis.slide import write_test_slide

FAULTS = ("no_mpp", "truncated", "text", "duplicate", "same_name_a", "same_name_b")
_FILES = {
    "no_mpp": "fault_no_mpp.svs",
    "truncated": "fault_truncated.svs",
    "text": "fault_text.svs",
    "duplicate": "fault_duplicate.svs",
    "same_name_a": "scanner_a/fault_same_name.svs",
    "same_name_b": "scanner_b/fault_same_name.svs",
}
_KEPT_SHARE = 0.6


@dataclass(frozen=True)
class Fault:
    """One faulty slide.

    Attributes:
        kind: One of ``FAULTS``.
        file: Path below ``slides/`` with ``/``.
        case_id: Patient in the labels table.
        label: Class in the labels table.
        original: File name of the slide that a duplicate repeats, else "".
        seed: Seed of the cohort.
    """

    kind: str
    file: str
    case_id: str
    label: str
    original: str
    seed: int

    @property
    def slide_id(self) -> str:
        """Id by the rule of the command line: the path with ``__``, where the name alone isn't unique."""
        return self.file.removesuffix(".svs").replace("/", "__")


def plan_faults(plans: tuple[SlidePlan, ...]) -> tuple[Fault, ...]:
    """Plans one fault of each kind for a cohort; the slides of the first patient (centre 0) are the hosts."""
    first = plans[0]
    return tuple(
        Fault(
            kind,
            _FILES[kind],
            first.case_id,
            first.label if kind == "duplicate" else "negative",
            first.file_name if kind == "duplicate" else "",
            first.seed,
        )
        for kind in FAULTS
    )


def make_fault(fault: Fault, slides: Path) -> None:
    """Makes one faulty slide below ``slides``; the original of a duplicate must be there already."""
    path = slides / fault.file
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = fault.seed * len(FAULTS) + FAULTS.index(fault.kind)
    if fault.kind == "text":
        write_text(path, "This is not a slide: somebody renamed a text file.\n" * 20)
    elif fault.kind == "duplicate":
        with atomic_path(path) as temporary:
            shutil.copyfile(slides / fault.original, temporary)
    elif fault.kind == "truncated":
        with atomic_path(path) as temporary:
            write_test_slide(temporary, width_px=2048, height_px=1536, seed=seed)
            with temporary.open("r+b") as handle:
                handle.truncate(int(temporary.stat().st_size * _KEPT_SHARE))
    else:
        mpp = None if fault.kind == "no_mpp" else 0.5
        write_test_slide(path, width_px=2048, height_px=1536, mpp=mpp, seed=seed)
