"""Runs docker/compose.watch.yaml as docs/how-to/service.md says, with podman; by hand, never by pytest.

    python tests/containers/watch.py WORK [--override FILE]

Root on Debian 12 with podman, runc and podman-compose in PATH, and the image wsi-ncmi:cpu (that of check.py). WORK
is an empty folder; FILE is a further compose file for what the machine is otherwise (log driver, limits). A slide
is put into the inbox and has to be answered; the health check has to say healthy, and to end a service that is
stuck, which the restart policy starts again; an update in mid-slide has to release it, and the new container to
answer it; a promoted model has to be taken into use. Without systemd podman starts no health check by itself: the
script runs them as its timer would. Exit code 1 when anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from engine import USER, demand  # noqa: E402

from tests.prediction.models import export, make_bundle, write_run  # noqa: E402
from tests.workflows.conftest import GRID, WIDTH, tissue  # noqa: E402
from wsi_ncmi.prediction.model_folder import promote_bundle  # noqa: E402
from wsi_ncmi.service import check_audit_log  # noqa: E402
from wsi_ncmi.synthesis import write_pyramid  # noqa: E402

_STALL_S, _PATIENCE_S = 60, 180


class Composed:
    """The service ``watch-cpu`` of the compose file.

    Args:
        work: Folder with ``inbox``, ``out``, ``models`` and ``weights``.
        override: A further compose file.
    """

    def __init__(self, work: Path, override: Path | None) -> None:
        self.out = work / "out"
        self._files = ["-f", str(ROOT / "docker" / "compose.watch.yaml")]
        self._files += ["-f", str(override)] if override else []
        self._environment = {
            **os.environ, "SLIDES": str(work / "inbox"), "OUT": str(self.out), "MODELS": str(work / "models"),
            "WEIGHTS": str(work / "weights"), "CPUS": "1", "MEMORY": "3g", "STALL_S": str(_STALL_S),
            "OPERATOR": "pathology",
        }  # fmt: skip

    def compose(self, *words: str) -> None:
        """One command of podman-compose."""
        ended = subprocess.run(
            ["podman-compose", *self._files, *words],
            env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        demand(ended.returncode == 0, ended.stderr[-2000:])

    def podman(self, *words: str) -> str:
        """What a command of podman says."""
        return subprocess.run(["podman", *words], capture_output=True, text=True, check=False).stdout.strip()

    @property
    def name(self) -> str:
        """Of the container."""
        return self.podman("ps", "-a", "--filter", "name=watch-cpu", "--format", "{{.Names}}")

    def state(self, field: str) -> str:
        """A field of the container's state."""
        return self.podman("inspect", self.name, "--format", "{{" + field + "}}")

    def answers(self) -> dict[str, str]:
        """Slide → digest of the model that answered, each once."""
        entries = [
            json.loads(line)
            for path in sorted((self.out / "audit-log").glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        found = [(e["slide_id"], e["model"]["digest"]) for e in entries if e["event"] == "answer"]
        demand(len(found) == len(dict(found)), f"a slide was answered twice: {found}")
        return dict(found)


def wait(holds: Callable[[], object], what: str) -> float:
    """Seconds until something holds."""
    started = time.monotonic()
    while not holds():
        demand(time.monotonic() - started < _PATIENCE_S, f"{what}: not within {_PATIENCE_S} s")
        time.sleep(0.2)
    return round(time.monotonic() - started, 1)


def prepare(work: Path) -> None:
    """Two bundles and a few slides, which belong to the image's user."""
    for name in ("inbox", "out", "models", "weights", "later"):
        (work / name).mkdir(parents=True)
    for number in (1, 2):
        run = write_run(work / f"run{number}" / "ncmi", folds=number, width=WIDTH, **GRID)
        export(make_bundle(run, width=WIDTH), run, work / "models" / f"m{number}.zip")
    promote_bundle(work / "models" / "m1.zip")
    for number in range(4):
        write_pyramid(work / "later" / f"s{number}.svs", tissue(number), 0.5)
    write_pyramid(work / "later" / "large.svs", tissue(9, 8000, 6000), 0.5)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(work)], check=True)


def check(work: Path, service: Composed) -> None:
    """All that has to hold, step by step."""

    def arrive(name: str) -> None:
        (work / "later" / f"{name}.svs").rename(work / "inbox" / f"{name}.svs")

    def say(what: str) -> None:
        print(f"ok   {what}", flush=True)

    arrive("s0")
    service.compose("up", "-d", "--no-build", "watch-cpu")
    say(f"answered after {wait(lambda: 's0' in service.answers(), 'an answer')} s")
    service.podman("healthcheck", "run", service.name)
    demand(service.state(".State.Health.Status") == "healthy", "not healthy")
    say("the health check says healthy")

    first = service.state(".State.Pid")
    inside = [int(word) for word in service.podman("top", service.name, "hpid").split()[1:]]
    for pid in inside:
        if pid != int(first):  # all but tini
            os.kill(pid, 19)
    time.sleep(_STALL_S + 5)
    failed = sum(
        subprocess.run(["podman", "healthcheck", "run", service.name], capture_output=True, check=False).returncode != 0
        for _ in range(3)
    )  # fmt: skip
    demand(failed > 0, "a stuck service is healthy")
    seconds = wait(
        lambda: service.state(".State.Running") == "true" and service.state(".State.Pid") not in ("0", first),
        "a restart",
    )
    arrive("s1")
    wait(lambda: "s1" in service.answers(), "an answer after the restart")
    say(f"stuck: {failed} of 3 health checks failed, started again after {seconds} s, and it answered")

    arrive("large")
    wait(lambda: list(service.out.glob("features/*/.claims/large*")), "the slide in hand")
    before = service.state(".Id")
    started = time.monotonic()
    service.compose("up", "-d", "--no-build", "--force-recreate", "watch-cpu")
    seconds = round(time.monotonic() - started, 1)
    demand(service.state(".Id") != before, "the container is the same")
    wait(lambda: "large" in service.answers(), "the released slide")
    say(f"update in mid-slide: the new container ran after {seconds} s and answered the slide, once")

    promote_bundle(work / "models" / "m2.zip")
    arrive("s2")
    wait(lambda: "s2" in service.answers(), "an answer of the new model")
    answers = service.answers()
    demand(answers["s2"] != answers["s0"], "the promoted model is not in use")
    say("a promoted model was taken into use, earlier answers stayed")

    started = time.monotonic()
    service.compose("stop", "watch-cpu")
    code = service.state(".State.ExitCode")
    demand(code == "0", f"it ended with {code} after SIGTERM")
    found = check_audit_log(service.out / "audit-log")
    demand(not found.problem, found.problem)
    say(f"stopped with 0 after {time.monotonic() - started:.1f} s; {found.entries} entries, chain whole")


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--override", type=Path)
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    demand(not work.exists() or not any(work.iterdir()), f"{work} is not empty")
    demand(shutil.which("podman-compose") is not None, "podman-compose is missing")
    service = Composed(work, arguments.override)
    prepare(work)
    try:
        check(work, service)
    except AssertionError as error:
        print(f"FAIL {error}\n{service.podman('logs', '--tail', '20', service.name)}")
        sys.exit(1)
    finally:
        service.compose("down")


if __name__ == "__main__":
    main()
