"""Slides under keyed names: links to them or bare copies, and the mapping kept apart."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError, SlideError, counted
from wsi_ncmi.core.files import atomic_path, ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.tables import read_table
from wsi_ncmi.slides.bare_copy import copy_bare
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.found import FoundSlide, name_slides
from wsi_ncmi.slides.pseudonyms import make_key, pseudonym, read_key
from wsi_ncmi.workflows.result import JobResult

_COLUMNS = ("pseudonym", "slide_id", "path")
_ISSUER = "wsi-ncmi slide"  # so that a slide never has the pseudonym of a patient of the same id
_DICOM = (
    "it is DICOM, whose header names patient and container and stays in a link; de-identify it in your "
    "archive (DICOM PS3.15, Annex E)"
)
_SEVERAL = "it consists of several files that name each other, so it can't be called otherwise"


@configclass
class PseudonymiseConfig:
    """Slides to call by keyed names.

    Attributes:
        slides: Folder of slides, or one slide.
        out: Folder for the links or copies.
        key: File of the key, outside ``out``.
        mapping: Table of pseudonyms and slides, written or added to, outside ``out``; only its owner may
            read it.
        copy: Write bare copies, which hold the pyramid alone, in place of links, which are the slides
            themselves.
        new_key: Make the key first.
    """

    slides: Path
    out: Path
    key: Path
    mapping: Path
    copy: bool = False
    new_key: bool = False


def pseudonymise(config: PseudonymiseConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Gives every slide a name by HMAC-SHA256 under the key; what is there already stays.

    Args:
        config: Slides, folder, key and mapping.
        progress: Shows every slide.

    Returns:
        Paths of ``slides`` and ``mapping``; a failure for every slide that can't be called otherwise.

    Raises:
        InputError: No key, a mapping of another key, or one of them or the folder lies where it mustn't.
    """
    out = config.out.resolve()
    for name, file in (("--key", config.key), ("--mapping", config.mapping)):
        if out in file.resolve().parents:
            raise InputError(
                f"{name} lies in {config.out}, whose readers it is kept from; name another place."
            )
    if config.slides.resolve() in (out, *out.parents):
        raise InputError(f"{config.out} lies in {config.slides}; choose a folder outside it.")
    if config.new_key:
        make_key(config.key)
    key = read_key(config.key)
    found = find_slides(config.slides)
    if not found:
        raise InputError(f"There is no slide in {config.slides}; give the folder that holds the slides.")
    known = _read_mapping(config.mapping)
    names = {
        pseudonym(key, slide_id, _ISSUER): (slide_id, slide)
        for slide_id, slide in zip(name_slides(found), found, strict=True)
    }
    given = {slide_id: name for name, (slide_id, _) in known.items()}
    if any(given.get(slide_id, name) != name for name, (slide_id, _) in names.items()):
        raise InputError(f"{config.mapping} is of another key; name another file with --mapping.")
    known |= {name: (slide_id, slide.relative) for name, (slide_id, slide) in names.items()}
    ensure_folder(config.out)
    _write_mapping(config.mapping, known)
    failures = []
    with (progress or NullProgress()).task("pseudonymise", len(names), "slides") as task:
        for name, (_, slide) in names.items():
            try:
                _give(slide, config.out / name, copy=config.copy)
            except SlideError as error:
                failures.append(f"{slide.relative}: {error}.")
            except OSError as error:
                failures.append(f"{slide.relative}: {error.strerror or error}.")
            task.advance(1, name)
    kept = (
        "Copies hold the tiles of the pyramid, their size and resolution; no label, macro or other text."
        if config.copy
        else "Links are the slides themselves: label, macro and all that the header says are still in them."
    )
    done = f"{counted(len(names) - len(failures), 'slide')} under {'copies' if config.copy else 'links'}."
    return JobResult({"slides": config.out, "mapping": config.mapping}, tuple(failures), (done, kept))


def _give(slide: FoundSlide, target: Path, *, copy: bool) -> None:
    """Makes link or copy ``target.<extension>``, of MRXS with its folder.

    Raises:
        SlideError: This slide can't be called otherwise, or not here.
        OSError: It can't be read or written.
    """
    if slide.problem:
        raise SlideError(slide.problem.rstrip("."))
    if slide.dicom:
        raise SlideError(_DICOM)
    source, folder = slide.path.resolve(), slide.path.with_suffix("")
    parts = slide.path.suffixes[-2:] if ".ome." in slide.path.name.lower() else slide.path.suffixes[-1:]
    file = target.with_name(target.name + "".join(parts).lower())
    if copy:
        if slide.companions:
            raise SlideError("only slides of one file are copied bare; link it")
        if not file.exists():
            copy_bare(source, file)
        return
    if any(folder not in each.parents for each in slide.companions):
        raise SlideError(_SEVERAL)
    for each in slide.companions:
        _link(each.resolve(), target / each.relative_to(folder))
    _link(source, file)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        if not target.samefile(source):
            raise SlideError(f"{target.name} is there already and is another file; remove it") from None
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise SlideError(
            f"no hard link to it can be made here ({error.strerror}); choose a folder on its own file system "
            "and be the owner of the slides"
        ) from error


def _read_mapping(path: Path) -> dict[str, tuple[str, str]]:
    if not path.is_file():
        return {}
    table = read_table(path)
    table.require(_COLUMNS)
    return {row["pseudonym"]: (row["slide_id"], row["path"]) for row in table.rows}


def _write_mapping(path: Path, known: dict[str, tuple[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((name, *known[name]) for name in sorted(known))  # an order that says nothing
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The mapping can't be written to {path} ({error.strerror}); name another file."
        ) from error
