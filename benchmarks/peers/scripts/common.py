"""What the scripts of all parts share; runs in a peer's interpreter, which does not know this project."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]
_START = {"start_cpu": 0.0}


def run(programs: dict[str, Callable[[Job], Job]]) -> None:
    """Does what the command line says, ``PROGRAM JOB``; the last line it prints is the result as JSON."""
    result = programs[sys.argv[1]](json.loads(sys.argv[2]))
    sys.stdout.flush()
    print("\n" + json.dumps(_START | result))


def ready() -> None:
    """Everything is imported: the processor time until here is that of the start, and not of the work."""
    _START["start_cpu"] = time.process_time()
