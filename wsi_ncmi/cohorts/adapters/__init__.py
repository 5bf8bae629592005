"""One file a public cohort: what its label sheet means."""

from __future__ import annotations
