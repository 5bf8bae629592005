"""The study of the losses: cohorts × regimes × losses × folds × seeds, resumable, with its statistics."""

from __future__ import annotations

from wsi_ncmi.jobs.study.job import StudyRequest, run_study
from wsi_ncmi.jobs.study.plan import STAGES
from wsi_ncmi.jobs.study.stages import study_stage

__all__ = ["STAGES", "StudyRequest", "run_study", "study_stage"]
