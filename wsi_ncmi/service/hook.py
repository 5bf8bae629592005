"""Answers handed on: a JSON file each, and a command that takes it to the site's own system."""

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder, parse_json, write_json
from wsi_ncmi.core.leftovers import clean_folder

_LOG = logging.getLogger(__name__)
_MAX_SAID = 300


class Outbox:
    """Latest answer of every slide, in ``answers/``; with a command first in ``answers/pending/``.

    An answer leaves ``pending/`` when the command ends with 0. It is called at least once for each: a kill
    between its end and the move lets it be called again.

    Args:
        out: Output folder.
        command: Words of the command, split as a shell would but run without one; the path of the answer's
            file is added. Empty = none.
        timeout_s: Seconds that it may take.

    Raises:
        InputError: There is no such command.
    """

    def __init__(self, out: Path, command: str, timeout_s: float) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise InputError(f"--on-answer {command!r} can't be split into words ({error}).") from error
        if self._command and shutil.which(self._command[0]) is None:
            raise InputError(
                f"--on-answer: there is no program {self._command[0]!r}; give its path, and make it "
                "executable."
            )
        self._timeout_s = timeout_s
        self._answers = ensure_folder(out / "answers")
        self._pending = ensure_folder(self._answers / "pending")
        for folder in (self._answers, self._pending):
            clean_folder(folder)

    def put(self, slide_id: str, answer: Mapping[str, Any]) -> None:
        """Writes an answer, once: one that was handed on already is left as it is."""
        done = self._answers / f"{slide_id}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if parse_json(done.read_bytes())["audit"] == answer["audit"]:
                return
        write_json((self._pending if self._command else self._answers) / f"{slide_id}.json", answer)

    def deliver(self) -> tuple[int, int]:
        """Hands on what is pending, oldest first, up to the first failure; that one is the last next time.

        Returns:
            Failures, and answers that are still pending.
        """
        pending = sorted(self._pending.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        failures = 0
        for path in pending if self._command else ():
            problem = _call([*self._command, str(path.absolute())], self._timeout_s)
            if problem:
                failures += 1
                os.utime(path)
                _LOG.warning(
                    "The hook did not take the answer of %s (%s); it is called again.", path.stem, problem
                )
                break
            os.replace(path, self._answers / path.name)
        return failures, sum(path.exists() for path in pending)


def _call(command: list[str], timeout_s: float) -> str:
    """Why a command failed; empty where it did not. One that takes too long goes with all that it started."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own, without a shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return f"it can't be started: {error.strerror}"
    with process:
        try:
            _, said = process.communicate(timeout=timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"it took longer than {timeout_s:g} s"
            raise
    return (
        f"it ended with {process.returncode}: {' '.join(said.split())[-_MAX_SAID:]}"
        if process.returncode
        else ""
    )
