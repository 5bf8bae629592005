"""Result of a job: its files, and what failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class JobResult:
    """The end of a job.

    Attributes:
        files: What it wrote, by name (``report``, ``predictions``, ``ledger``, …).
        failures: One sentence for each item that failed; the rest of the job was finished.
        notes: Sentences worth telling on the way out.
    """

    files: Mapping[str, Path]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 = all done, 1 = finished but something failed."""
        return 1 if self.failures else 0
