"""What the scripts of all parts share; runs in a peer's interpreter, which does not know this project."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]


def run(programs: dict[str, Callable[[Job], Job]]) -> None:
    """Does what the command line says, ``PROGRAM JOB``; the last line it prints is the result as JSON.

    To what the program returns come the processor and wall seconds of its work.
    """
    result = programs[sys.argv[1]](json.loads(sys.argv[2]))
    cpu, wall = (end - start for end, start in zip(used(), _START, strict=True))
    sys.stdout.flush()
    print("\n" + json.dumps({"cpu": cpu, "wall": wall} | result))


def used() -> list[float]:
    """Processor seconds so far of this process and of its children that ended, and the time."""
    now = os.times()
    return [sum(now[:4]), time.monotonic()]


_START = used()


def ready() -> None:
    """Everything is imported: what was used until here is the start, and not the work."""
    _START[:] = used()


def command(main: Callable[[], object], arguments: list[str]) -> None:
    """Calls a command line's entry point in this process.

    Raises:
        RuntimeError: It ended with an error.
    """
    sys.argv = arguments
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{arguments[0]} ended with {end.code}") from end
