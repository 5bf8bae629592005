"""Renews the locks of the peers: ``python -m benchmarks.peers.locking [NAME …]``.

``locks/NAME.in`` holds what is asked for. Into ``locks/NAME.lock`` go the versions and, of each, the hashes
of the files that fit Linux on x86-64 and the peer's Python (of the source where no wheel does).
"""

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from benchmarks.peers.catalogue import PEERS, Peer

_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(34, 4, -1)]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def main() -> None:
    """Renews the locks named, or all."""
    for name in sys.argv[1:] or sorted({peer.lock for peer in PEERS.values()}):
        peer = next(peer for peer in PEERS.values() if peer.lock == name)
        peer.lock_file.write_text("\n".join(lock_lines(resolve(peer), peer.python)) + "\n", "utf-8")
        print(peer.lock_file.name)


def resolve(peer: Peer) -> dict[str, Any]:
    """What uv resolves for the peer, as a ``pylock.toml``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pylock.toml"
        command = ["uv", "pip", "compile", "--quiet", "--python-version", peer.python]
        command += ["--python-platform", "x86_64-manylinux_2_34", "--output-file", str(out)]
        subprocess.run([*command, str(peer.lock_file.with_suffix(".in"))], check=True)
        return tomllib.loads(out.read_text("utf-8"))


def lock_lines(resolved: dict[str, Any], python: str) -> list[str]:
    """One line a package, with the hashes of the files that fit."""
    version = (int(python.split(".")[0]), int(python.split(".")[1]))
    tags = set(cpython_tags(version, platforms=_PLATFORMS)) | set(
        compatible_tags(version, platforms=_PLATFORMS)
    )
    return [
        " ".join([f"{package['name']}=={package['version']}", *sorted(set(hashes_of(package, tags)))])
        for package in resolved["packages"]
    ]


def hashes_of(package: dict[str, Any], tags: set[Tag]) -> Iterator[str]:
    """Hashes of the wheels that fit, or of the source."""
    fitting = [
        wheel for wheel in package.get("wheels", []) if parse_wheel_filename(file_name(wheel))[3] & tags
    ]
    for file in fitting or [package["sdist"]]:
        yield f"--hash=sha256:{file['hashes']['sha256']}"


def file_name(file: dict[str, Any]) -> str:
    """Name of a file, which a lock may give by its address alone."""
    return str(file.get("name") or file["url"].rsplit("/", 1)[-1])


if __name__ == "__main__":
    main()
