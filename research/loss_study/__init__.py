"""The study of the losses: cohorts × regimes × losses × folds × seeds, resumable, with its statistics."""

from research.loss_study.job import StudyRequest, run_study, study_stage
from research.loss_study.plan import STAGES

__all__ = ["STAGES", "StudyRequest", "run_study", "study_stage"]
