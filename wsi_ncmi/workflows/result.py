"""Result of a job: its files, what failed, and the headline to end with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_ncmi.core.files import parse_json


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


def headlines(files: Mapping[str, Path]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The result itself, from the files of a training, evaluation or sweep.

    Args:
        files: Of a :class:`JobResult`; those of a variant have its name and a dot in front.

    Returns:
        The numbers, JSON-ready (``loss, macro_f1, n_slides, n_patients, losses, differences``, or ``cells``;
        below the name of each variant), and the same in lines; both empty for other jobs.
    """
    numbers: dict[str, Any] = {}
    lines: list[str] = []
    for name, path in files.items():
        variant, _, kind = name.rpartition(".")
        differences = files.get(f"{variant}.differences" if variant else "differences")
        if kind == "metrics":
            found, told = _of_metrics(_read(path), _read(differences)["differences"] if differences else [])
        elif kind == "overview":
            found, told = {"cells": _read(files["summary"])["cells"]}, path.read_text("utf-8").splitlines()
        else:
            continue
        numbers |= {variant: found} if variant else found
        lines += [f"{variant}: {line}" if variant else line for line in told]
    return numbers, tuple(lines)


def _read(path: Path) -> Any:
    return parse_json(path.read_text(encoding="utf-8"))


def _of_metrics(content: Mapping[str, Any], differences: list[Any]) -> tuple[dict[str, Any], list[str]]:
    from wsi_ncmi.reporting.formatting import count, number

    losses = content.get("losses") or {content.get("loss") or "": content}
    numbers = {
        **{key: content.get(key) for key in ("loss", "macro_f1", "n_slides", "n_patients")},
        "losses": {loss: found["macro_f1"] for loss, found in losses.items() if loss},
        "differences": differences,
    }
    lines = [
        f"Macro-F1{f' ({loss})' if loss else ''} {number(found['macro_f1']['value'])}"
        f"{_interval(found['macro_f1'])}, {count(found['n_slides'], 'slide')} of "
        f"{count(found['n_patients'], 'patient')}"
        for loss, found in losses.items()
    ]
    lines += [
        f"Macro-F1 of {each['a']} minus {each['b']}: {number(each['difference'])}{_interval(each, ' to ')}"
        + (f", p {number(each['p_value'])}" if each.get("p_value") is not None else "")
        for each in differences
    ]
    return numbers, lines


def _interval(found: Mapping[str, Any], separator: str = "–") -> str:
    from wsi_ncmi.reporting.formatting import number

    if found.get("ci_low") is None:
        return f" ({found['reason']})" if found.get("reason") else ""
    return f" (95 % CI {number(found['ci_low'])}{separator}{number(found['ci_high'])})"
