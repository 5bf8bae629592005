"""What all kinds share: damage at a place, what an error is, child processes that may end or hang."""

import json
import os
import random
import re
import resource
import select
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import WsiNcmiError

OUTCOMES = ("same", "refused", "other", "contained")
FAULTS = ("crash", "hang", "lost", "silent", "unclear")
LIMIT_S = 20
_MEMORY_BYTES = 6 << 30


@dataclass(frozen=True)
class Result:
    """What became of an input.

    Attributes:
        group: Part of the kind: a base, a format.
        what: How it was damaged, with its number.
        outcome: One of ``OUTCOMES`` or ``FAULTS``.
        detail: The sentence, or what is wrong.
        content: The input, or None where its name is all.
    """

    group: str
    what: str
    outcome: str
    detail: str = ""
    content: bytes | None = None


Regions = dict[str, list[tuple[int, int]]]
"""Places of a file by name: offsets and lengths."""


def mutate(content: bytes, regions: Regions, rng: random.Random) -> tuple[bytes, str]:
    """Damages a file at one place in one way; the bytes, and both in words."""
    place = rng.choice([name for name, spans in regions.items() if spans])
    data = bytearray(content)
    start, length = rng.choice(regions[place])
    length = max(1, min(length, len(data) - start))
    way = rng.choice(("bit", "bytes", "zeros", "giant", "swap", "double", "cut", "shift"))
    at = start + rng.randrange(length)
    some = min(max(4, int(length * rng.uniform(0.02, 0.6))), len(data) - at)
    if way == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif way == "bytes":
        for _ in range(rng.randint(1, 8)):
            data[start + rng.randrange(length)] = rng.randrange(256)
    elif way == "zeros":
        data[at : at + some] = bytes(some)
    elif way == "giant":
        size = rng.choice((2, 4, 8))
        at = start + (at - start) // size * size
        data[at : at + size] = rng.choice((b"\xff", b"\x7f", b"\0\xff")).ljust(size, b"\xff")
    elif way in ("swap", "double"):
        size = rng.choice((4, 8, 12)) if place not in ("data", "file") else min(some, length // 2)
        other_start, other_length = rng.choice(regions[place])
        other = other_start + rng.randrange(max(1, other_length - size)) // size * size if size else at
        at = start + (at - start) // max(size, 1) * size
        first, second = bytes(data[at : at + size]), bytes(data[other : other + size])
        data[at : at + size] = second
        if way == "swap" and len(second) == len(first):
            data[other : other + size] = first
    elif way == "cut":
        del data[at:]
    else:
        some = rng.randint(1, 9)
        data[at:at] = rng.randbytes(some)
        del data[at + some : at + some * rng.choice((1, 3))]
    return bytes(data), f"{place} {way}"


def is_unclear(sentence: str) -> bool:
    """Whether a sentence holds what only a programmer understands, or nothing."""
    return not sentence or bool(
        re.search(
            r"Traceback|\b[A-Z][a-zA-Z]*(Error|Exception|Warning)\b|NoneType|<class|object at 0x", sentence
        )
    )


def judged(read: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Outcome and detail of reading an input; an error for the user's eyes is ``refused``."""
    try:
        return read()
    except WsiNcmiError as error:
        return ("unclear" if is_unclear(str(error)) else "refused"), str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "crash", f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def in_children(
    items: Sequence[Any], work: Callable[[Any], tuple[str, str]], limit_s: float = LIMIT_S
) -> Iterator[tuple[str, str]]:
    """Judges items in a child process; what ends or holds it up is one item's ``crash`` or ``hang``."""
    done = 0
    while done < len(items):
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            os.close(read_end)
            _work_in_child(items[done:], work, write_end)
        os.close(write_end)
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            buffer = b""
            while done < len(items):
                if not select.select([pipe], [], [], limit_s)[0]:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    yield "hang", f"no end within {limit_s:g} s"
                    done += 1
                    break
                if not (news := pipe.read(1 << 16)):
                    status = os.waitpid(child, 0)[1]
                    yield "crash", f"the process ended with {os.waitstatus_to_exitcode(status)}"
                    done += 1
                    break
                *lines, buffer = (buffer + news).split(b"\n")
                for line in lines:
                    outcome, detail = json.loads(line)
                    yield outcome, detail
                    done += 1
            else:
                os.waitpid(child, 0)


def _work_in_child(items: Sequence[Any], work: Callable[[Any], tuple[str, str]], pipe: int) -> None:
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        for item in items:
            os.write(pipe, json.dumps(judged(lambda item=item: work(item))).encode() + b"\n")
    finally:
        os._exit(0)


Judge = Callable[[Path], tuple[str, str]]
Item = tuple[str, str, bytes, str, Judge]
"""Group, damage in words, content, path below the folder, judge of the file there."""

NONSENSE: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, 10**18, "", "x", "nan", "\x00", "../../x", [], {}, [[]], ["x"], {"x": 1}, -0.5,
)  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A file with damage at a random place."""
    return mutate(content, {"file": [(0, len(content))]}, rng)


def judge_all(items: list[Item], base: Path, work: Path) -> Iterator[Result]:
    """Puts each file into a copy of its folder and judges it there, in a child process."""

    def work_on(item: Item) -> tuple[str, str]:
        _, _, content, name, judge = item
        with tempfile.TemporaryDirectory(dir=work) as temporary:
            place = Path(temporary) / "x"
            if base.is_dir():
                shutil.copytree(base, place)
            target = place / name if base.is_dir() else place.with_suffix(base.suffix)
            target.write_bytes(content)
            return judge(target)

    for item, (outcome, detail) in zip(items, in_children(items, work_on), strict=True):
        yield Result(item[0], item[1], outcome, detail, item[2])


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON value: its container and its key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _leaves(inner)


def nonsense_in_json(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A JSON text of which one value is nonsense, missing or deep."""
    value = json.loads(text)
    container, key = rng.choice(list(_leaves(value)))
    given = rng.choice((*NONSENSE, "missing", "deep", "renamed", NotImplemented))
    if given == "missing":
        del container[key]
    elif given == "renamed" and isinstance(container, dict):
        container[f"{key}_"] = container.pop(key)
    elif given == "deep":
        container[key] = "DEEP"
        return json.dumps(value).replace('"DEEP"', "[" * 100_000 + "]" * 100_000).encode(), f"deep {key}"
    elif given is NotImplemented:
        container[key] = "NUMBER"
        number = rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-0.0", "1e-320"))
        return json.dumps(value).replace('"NUMBER"', number).encode(), f"{key} {number[:9]}"
    else:
        container[key] = given
    return json.dumps(value).encode(), f"{key} {given!r:.20}"
