"""Result of a job: its files, what failed, and the headline to end with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import parse_json

if TYPE_CHECKING:
    import pandas as pd

    from wsi_ncmi.metrics import Estimate


@dataclass(frozen=True, repr=False)
class JobResult:
    """The end of a job: what it wrote, and the numbers in it, read when they are asked for.

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

    @cached_property
    def metrics(self) -> Mapping[str, Estimate]:
        """Metrics of a training or evaluation by name (of several losses, those of the headline).

        Raises:
            InputError: The job has none.
        """
        found: dict[str, Any] = _read(self._file("metrics"))
        return {name: _estimate(value) for name, value in found.items() if _is_estimate(value)}

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The table of predictions, ids and classes as texts.

        Raises:
            InputError: The job has none.
        """
        import pandas as pd

        texts = dict.fromkeys(("slide_id", "case_id", "label", "prediction", "decision", "centre"), str)
        return pd.read_csv(self._file("predictions"), dtype=texts, keep_default_na=False, na_values=[""])

    @cached_property
    def numbers(self) -> Mapping[str, Any]:
        """The result in few numbers, as ``--json`` prints it: losses and their differences among them."""
        return headlines(self.files)[0]

    def _file(self, name: str) -> Path:
        if name not in self.files:
            raise InputError(f"This job has no {name}; it wrote {', '.join(self.files) or 'nothing'}.")
        return self.files[name]

    @property
    def _lines(self) -> list[str]:
        failed = [f"{counted(len(self.failures), 'failure')}: {self.failures[0]}"] if self.failures else []
        return [*headlines(self.files)[1], *self.notes, *failed]

    def __repr__(self) -> str:
        files = [f"  {name}: {path}" for name, path in self.files.items()]
        return "\n".join(["JobResult", *(f"  {line}" for line in self._lines), *files])

    def _repr_html_(self) -> str:
        """The result in a notebook."""
        lines = "<br>".join(map(escape, self._lines))
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(str(path))}</td></tr>"
            for name, path in self.files.items()
        )
        return f"<div>{lines}<table>{rows}</table></div>"


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


def _estimate(values: Mapping[str, Any]) -> Estimate:
    from wsi_ncmi.metrics import Estimate

    content: dict[str, Any] = {key: math.nan if part is None else part for key, part in values.items()}
    return Estimate(**content)


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and {"value", "ci_low", "ci_high"} <= set(value)


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
        + _discordant(each)
        for each in differences
    ]
    return numbers, lines


def _discordant(found: Mapping[str, Any]) -> str:
    from wsi_ncmi.reporting.formatting import number

    if found.get("mcnemar_p") is None:
        return ""
    return (
        f"; slides that only one has right: {found['only_a']} and {found['only_b']}, McNemar p "
        f"{number(found['mcnemar_p'])}"
    )


def _interval(found: Mapping[str, Any], separator: str = "–") -> str:
    from wsi_ncmi.reporting.formatting import number

    if found.get("ci_low") is None:
        return f" ({found['reason']})" if found.get("reason") else ""
    return f" (95 % CI {number(found['ci_low'])}{separator}{number(found['ci_high'])})"
