"""Runs the command of docker/systemd/wsi-ncmi.service as systemd would, for machines without one.

    python tests/containers/unit.py WORK

The unit's paths are led to WORK, where a small model and a drawn slide are made. The command has to say that
it is ready over NOTIFY_SOCKET, to feed the watchdog, to answer the slide, and to end with 0 after SIGTERM.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.prediction.models import export, make_bundle, write_run  # noqa: E402
from tests.workflows.conftest import GRID, WIDTH, tissue  # noqa: E402
from wsi_ncmi.synthesis import write_pyramid  # noqa: E402


def main() -> None:
    """Runs it."""
    work = Path(sys.argv[1]).absolute()
    shutil.rmtree(work, ignore_errors=True)
    for name in ("inbox", "models", "predictions", "weights"):
        (work / name).mkdir(parents=True)
    run = write_run(work / "run" / "ncmi", folds=1, width=WIDTH, **GRID)
    export(make_bundle(run, reference=False), run, work / "models" / "a.zip")
    (work / "models" / "current").symlink_to("a.zip")
    write_pyramid(work / "inbox" / "s.svs", tissue(0), 0.5)
    unit = (ROOT / "docker" / "systemd" / "wsi-ncmi.service").read_text().replace("/srv/wsi-ncmi", str(work))
    environment = dict(os.environ) | {"FLAGS": "--settle 0 --interval 1 --workers 1 --no-heatmaps"}
    for line in re.findall(r"(?m)^Environment=(.+)$", unit):
        environment |= dict(word.split("=", 1) for word in shlex.split(line))
    (command,) = re.findall(r"(?m)^ExecStart=/opt/wsi-ncmi/bin/wsi-ncmi (.+)$", unit)
    os.environ.update(environment)
    words = [part for word in shlex.split(command) for part in shlex.split(os.path.expandvars(word))]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(work / "notify"))
        systemd.settimeout(200)
        environment["NOTIFY_SOCKET"] = str(work / "notify")
        with subprocess.Popen([sys.executable, "-m", "wsi_ncmi", *words], env=environment) as service:
            started, heard = time.monotonic(), []
            while b"READY=1" not in (heard or [b""])[-1]:
                heard.append(systemd.recv(100))
            print(f"ready after {time.monotonic() - started:.0f} s")
            answer = work / "predictions" / "answers" / "s.json"
            while not answer.is_file() and service.poll() is None:
                heard.append(systemd.recv(100))
            print(f"answered after {time.monotonic() - started:.0f} s, {len(heard)} messages")
            service.send_signal(signal.SIGTERM)
    print(f"ended with {service.returncode}")
    sys.exit(0 if service.returncode == 0 and answer.is_file() else 1)


if __name__ == "__main__":
    main()
