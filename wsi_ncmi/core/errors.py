"""Errors a user can reach. Each carries one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = [
    "IdentityConflictError",
    "InputError",
    "JobStoppedError",
    "MissingMppError",
    "SlideError",
    "SlideOpenError",
    "SlideReadError",
    "TrainingError",
    "UpsampleError",
    "WsiNcmiError",
    "counted",
]


class WsiNcmiError(Exception):
    """Base of all errors that are meant for the user's eyes."""


class InputError(WsiNcmiError):
    """Usage, configuration or input is wrong and nothing was started (exit code 2)."""


class IdentityConflictError(InputError):
    """A feature file of another identity stands where a new one would be written (exit code 2)."""


class JobStoppedError(WsiNcmiError):
    """A running job can't go on, for example because the disk is full; it can be resumed (exit code 1)."""


class SlideError(WsiNcmiError):
    """One slide can't be processed: it gets a ledger row and the rest of the job goes on."""


class SlideOpenError(SlideError):
    """No reader can open the file."""


class SlideReadError(SlideError):
    """A region of an open slide can't be read."""


class MissingMppError(SlideError):
    """No link of the resolution chain gives the slide's microns per pixel."""


class UpsampleError(SlideError):
    """The target resolution is finer than the slide's own and upsampling was not allowed."""


class TrainingError(WsiNcmiError):
    """One training run can't go on: its loss or gradient isn't finite, or its process died (exit code 1)."""


def counted(count: int, noun: str) -> str:
    """``1 slide``, ``2 slides``: a count with its noun, for messages."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
