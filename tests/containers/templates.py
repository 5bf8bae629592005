"""The compose file and the Apptainer definition, as far as they can be run without Docker and Apptainer."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

from engine import ROOT, Engine, cohort, demand, folder

COMPOSE = ROOT / "docker" / "compose.yaml"
CALLER = 4242


def compose(engine: Engine) -> str:
    """docker-compose reads the file, and its ``cpu`` service does a job by podman's Docker interface."""
    if shutil.which("docker-compose") is None:
        return "skipped: docker-compose is not installed"
    slides, out, weights = cohort(engine), folder(engine, "composed"), folder(engine, "no_weights")
    settings = {"SLIDES": str(slides), "OUT": str(out), "WEIGHTS": str(weights), "CPUS": "1", "MEMORY": "2g"}
    with _docker_interface(engine) as host:
        environment = {**engine.environment, **settings, "DOCKER_HOST": host}
        # Debian's docker-compose is a version 1, which does not turn a variable into the number of GPUs, and
        # podman has another name for logs in files.
        copy = engine.work / "compose.yaml"
        text = COMPOSE.read_text().replace("${GPUS:-1}", "1")
        text = text.replace("driver: local", "driver: k8s-file")
        # Where this machine allows no more, podman's own default of processes can't be set.
        copy.write_text(text.replace("    nofile: 4096\n", "    nofile: 1024\n    nproc: 1024\n"))
        command = ["docker-compose", "--project-name", "check", "--file", str(copy)]
        command += ["--project-directory", str(COMPOSE.parent)]
        bare = {name: value for name, value in environment.items() if name not in settings}
        ended = subprocess.run([*command, "config"], env=bare, capture_output=True, text=True, check=False)
        demand(ended.returncode != 0 and "name the folder of slides" in ended.stderr, ended.stderr[-2000:])
        ended = subprocess.run(
            [*command, "config", "--quiet"], env=environment, capture_output=True, text=True, check=False
        )
        demand(ended.returncode == 0, ended.stderr[-2000:])
        _service(engine, command, environment, [], ["cpu"])
        probe = (
            "import os, socket\n"
            "assert os.getuid() == 10001 and [name for _, name in socket.if_nameindex()] == ['lo']\n"
            "from wsi_ncmi.parallel import available_cores, memory_limit, shared_memory\n"
            "assert (available_cores(), memory_limit(), shared_memory()) == (1, 2 << 30, 1 << 30)\n"
            "for path in ('/x', '/slides/x', '/weights/x'):\n"
            "    try: open(path, 'w')\n"
            "    except OSError as error: assert error.errno in (13, 30), error\n"
            "    else: raise SystemExit(path + ' can be written to')\n"
        )
        _service(engine, command, environment, ["--entrypoint", "python3"], ["cpu", "-c", probe])
    done = len(list(out.glob("features/descriptor/*.h5")))
    demand(done == len(list(slides.glob("*.*"))), f"{done} slides done")
    return f"{done} slides by the cpu service; limits, mounts and network are those of the file"


def _service(
    engine: Engine, command: list[str], environment: dict[str, str], flags: list[str], words: list[str]
) -> None:
    """Runs a service to its end; detached, for podman does not let version 1 attach."""
    started = subprocess.run(
        [*command, "run", "-d", "--name", "composed", *flags, *words],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    demand(started.returncode == 0, started.stderr[-2000:])
    code = engine.call("podman", "wait", "composed").stdout.strip()
    said = engine.call("podman", "logs", "composed", check=False)
    engine.call("podman", "rm", "--force", "composed", check=False)
    demand(code == "0", f"exit code {code}: {said.stdout[-1000:]}{said.stderr[-1000:]}")


@contextlib.contextmanager
def _docker_interface(engine: Engine) -> Iterator[str]:
    """podman's answer to Docker's clients, on a socket that only this user can open."""
    socket = engine.work / "docker.sock"
    settings = engine.work / "containers.conf"
    # Names of images are those of the store; Docker's clients leave the registry out.
    settings.write_text("[engine]\ncompat_api_enforce_docker_hub = false\n")
    process = subprocess.Popen(
        ["podman", *engine.store, "--runtime", "runc", "system", "service", "--time", "0", f"unix://{socket}"],
        env={**engine.environment, "CONTAINERS_CONF": str(settings)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            if socket.exists():
                break
            time.sleep(0.1)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(30)
        socket.unlink(missing_ok=True)


def apptainer_definition(engine: Engine) -> str:
    """What the definition lets Apptainer run, run by podman as Apptainer would: the caller's user, home and read-only root."""
    text = (ROOT / "docker" / "wsi-ncmi.def").read_text()
    sections = dict(re.findall(r"(?ms)^%(\w+)[^\n]*\n(.*?)(?=^%|\Z)", text))
    home = folder(engine, "home", CALLER)
    (home / "run").write_text(f"#!/bin/sh\n{sections['environment']}\n{sections['runscript']}")
    (home / "test").write_text(f"#!/bin/sh\n{sections['environment']}\n{sections['test']}")
    # A package of the user's own must not be seen.
    site = home / ".local/lib/python3.11/site-packages/wsi_ncmi"
    site.mkdir(parents=True, exist_ok=True)
    (site / "__init__.py").write_text("raise SystemExit('the home was looked at')\n")
    slides, out = cohort(engine), folder(engine, "called", CALLER)
    options = (
        "--user", f"{CALLER}:{CALLER}", "-v", f"{home}:/home/caller:ro", "-e", "HOME=/home/caller", "-v", f"{slides}:/slides:ro",
        "-v", f"{out}:/out", "--entrypoint", "/bin/sh",
    )  # fmt: skip
    ended = engine.run("/home/caller/test", options=options, check=False)
    demand(ended.returncode == 0, ended.stderr[-2000:])
    version = ended.stdout.strip()
    ended = engine.run(
        "/home/caller/run",
        "extract",
        "/slides",
        "--out",
        "/out",
        "--workers",
        "1",
        options=options,
        check=False,
    )
    demand(ended.returncode == 0, ended.stderr[-2000:])
    owners = {path.stat().st_uid for path in out.rglob("*")}
    demand(owners == {CALLER}, f"owners {owners}")
    return f"{version}; {len(list(out.glob('features/descriptor/*.h5')))} slides as user {CALLER}"
