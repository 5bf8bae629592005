"""The machine check: what this program needs, what is there, and what to do about the rest."""

from wsi_ncmi.jobs.doctor.examination import examine
from wsi_ncmi.jobs.doctor.finding import Finding, Request

__all__ = ["Finding", "Request", "examine"]
