"""Options of a synthetic cohort."""

from typing import Annotated

from pydantic import Field

from wsi_ncmi.core.config import configclass


@configclass
class SynthesisConfig:
    """Options of ``make_cohort``; together with the generator's version they fix every byte.

    Attributes:
        patients: Number of patients; consecutive blocks of them belong to one centre.
        slides_per_patient: Slides of a patient (CAMELYON-17: 5).
        slides: Number of sound slides with tissue; when given it decides the number of patients
            (the last patient may then have fewer slides) and ``patients`` is not used.
        seed: Seed of everything.
        include_empty: Adds one sound slide without tissue (label negative, 0 tiles expected).
        faults: Adds the faulty slides of ``wsi_ncmi.synthesis.faults``.
        artefacts: Whether some slides carry pen marks, folds or blur.
    """

    patients: Annotated[int, Field(ge=1, le=1000)] = 10
    slides_per_patient: Annotated[int, Field(ge=1, le=100)] = 5
    slides: Annotated[int, Field(ge=1, le=100_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    include_empty: bool = True
    faults: bool = False
    artefacts: bool = True

    def slide_counts(self) -> tuple[int, ...]:
        """Number of slides with tissue of each patient."""
        if self.slides is None:
            return (self.slides_per_patient,) * self.patients
        full, rest = divmod(self.slides, self.slides_per_patient)
        return (self.slides_per_patient,) * full + ((rest,) if rest else ())
