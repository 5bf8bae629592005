"""Keyed names: the same under the same key, links that are the slides, the mapping apart."""

from __future__ import annotations

import csv
import errno
import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.slides.test_bare_copy import write_named
from wsi_ncmi.cli.app import app
from wsi_ncmi.slides.discovery import find_slides

KEY = "0123456789abcdef" * 4


@pytest.fixture
def site(tmp_path: Path) -> Path:
    slides = tmp_path / "slides"
    (slides / "b").mkdir(parents=True)
    write_named(slides / "Doe_John.svs")
    (slides / "b" / "Roe.ome.tiff").write_bytes(b"x")
    (slides / "Mox.mrxs").write_bytes(b"x")
    (slides / "Mox").mkdir()
    for name in ("Slidedat.ini", "Data0000.dat"):
        (slides / "Mox" / name).write_text(name)
    (tmp_path / "site.key").write_text(KEY)
    (tmp_path / "site.key").chmod(0o600)
    return tmp_path


def pseudonymise(site: Path, *more: str, code: int = 0, out: str = "named", mapping: str = "map.csv") -> str:
    arguments = [str(site / "slides"), str(site / out), "--key", str(site / "site.key")]
    done = CliRunner().invoke(app, ["pseudonymise", *arguments, "--mapping", str(site / mapping), *more])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def expected(slide_id: str) -> str:
    message = f"{slide_id}\0wsi-ncmi slide".encode()
    return hmac.new(KEY.encode(), message, hashlib.sha256).hexdigest()[:32]


def files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_links_are_the_slides_under_keyed_names(site: Path) -> None:
    said = pseudonymise(site)
    assert "Links are the slides themselves: label, macro and all that the header says" in said
    doe, roe, mox = map(expected, ("Doe_John", "Roe", "Mox"))
    found = files(site / "named")
    assert sorted(found) == sorted(
        [f"{doe}.svs", f"{roe}.ome.tiff", f"{mox}.mrxs", f"{mox}/Slidedat.ini", f"{mox}/Data0000.dat"]
    )
    assert found[f"{doe}.svs"].samefile(site / "slides" / "Doe_John.svs")
    assert found[f"{mox}/Data0000.dat"].samefile(site / "slides" / "Mox" / "Data0000.dat")
    assert not any(path.is_symlink() for path in found.values())
    assert {slide.path.name for slide in find_slides(site / "named")} == {
        f"{doe}.svs", f"{roe}.ome.tiff", f"{mox}.mrxs",
    }  # fmt: skip
    with (site / "map.csv").open(newline="") as handle:
        rows = [tuple(row.values()) for row in csv.DictReader(handle)]
    assert sorted(rows) == sorted(
        [(doe, "Doe_John", "Doe_John.svs"), (roe, "Roe", "b/Roe.ome.tiff"), (mox, "Mox", "Mox.mrxs")]
    )
    assert rows == sorted(rows)  # by pseudonym: the order of the slides is told to nobody
    assert stat.S_IMODE((site / "map.csv").stat().st_mode) == 0o600


def test_a_second_time_only_what_is_new_is_added(site: Path) -> None:
    pseudonymise(site)
    before = {name: path.stat().st_ino for name, path in files(site / "named").items()}
    (site / "slides" / "b" / "Roe.ome.tiff").unlink()
    (site / "slides" / "new.svs").write_bytes(b"y")
    pseudonymise(site)
    after = {name: path.stat().st_ino for name, path in files(site / "named").items()}
    assert after.keys() - before.keys() == {f"{expected('new')}.svs"}
    assert before.items() <= after.items()
    assert (site / "map.csv").read_text().count("\n") == 1 + 4
    (site / "slides" / "new.svs").unlink()
    (site / "slides" / "new.svs").write_bytes(b"another")
    assert "is there already and is another file" in pseudonymise(site, code=1)


def test_copies_are_bare_and_what_can_not_be_is_told(site: Path) -> None:
    (site / "slides" / "b" / "Roe.ome.tiff").unlink()
    said = pseudonymise(site, "--copy", code=1)
    assert "Mox.mrxs: only slides of one file are copied bare; link it." in said
    (name, copy), *more = files(site / "named").items()
    assert (name, more) == (f"{expected('Doe_John')}.svs", [])
    assert b"Doe" not in copy.read_bytes()
    changed = copy.stat().st_mtime_ns
    pseudonymise(site, "--copy", code=1)
    assert copy.stat().st_mtime_ns == changed


def test_slides_that_name_each_other_or_themselves_are_told_and_the_rest_goes_on(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "slides" / "v.vms").write_text("[Virtual Microscope Specimen]\nImageFile=v(0,0).jpg\n")
    (site / "slides" / "v(0,0).jpg").write_bytes(b"x")
    said = pseudonymise(site, code=1)
    assert "v.vms: it consists of several files that name each other" in said
    assert len(files(site / "named")) == 5

    def across(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    said = pseudonymise(site, code=1, out="elsewhere")
    assert "no hard link to it can be made here (Invalid cross-device link)" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mapping": "named/map.csv"}, "--mapping lies in"),
        ({"mapping": "named/deep/map.csv"}, "--mapping lies in"),
        ({"out": "."}, "--key lies in"),
        ({"out": "slides/named"}, "choose a folder outside it"),
        ({"out": "slides"}, "choose a folder outside it"),
    ],
)
def test_what_is_kept_apart_can_not_lie_together(site: Path, arguments: dict[str, str], words: str) -> None:
    assert words in pseudonymise(site, code=2, **arguments)  # type: ignore[arg-type]
    assert not (site / "named").exists()
    assert not (site / "map.csv").exists()


def test_keys_and_mappings_of_another_kind_are_one_sentence(site: Path) -> None:
    assert "There is a key" in pseudonymise(site, "--new-key", code=2)
    pseudonymise(site)
    (site / "site.key").unlink()
    assert "can't be read" in pseudonymise(site, code=2)
    assert "is of another key" in pseudonymise(site, "--new-key", code=2)
    (site / "site.key").write_text("short")
    assert "is no key of pseudonyms" in pseudonymise(site, code=2)
    (site / "site.key").write_text(KEY)
    (site / "map.csv").write_text("a,b\n1,2\n")
    assert "pseudonym" in pseudonymise(site, code=2)
    (site / "empty").mkdir()
    done = CliRunner().invoke(
        app,
        [
            "pseudonymise",
            str(site / "empty"),
            str(site / "x"),
            "--key",
            str(site / "site.key"),
            "--mapping",
            "m",
        ],
    )
    assert (done.exit_code, "There is no slide" in " ".join(done.output.split())) == (2, True)
