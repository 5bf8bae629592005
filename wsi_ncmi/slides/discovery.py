"""Finds the slides of a folder: nested folders, links without loops, several files of one slide as one."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ncmi.core.errors import InputError, SlideOpenError, counted, plain_reason
from wsi_ncmi.core.files import OUTPUT_MARKER, irregular_kind
from wsi_ncmi.slides.dicom_header import (
    IDENTIFYING,
    PATIENT,
    PSEUDONYM,
    is_other_object,
    kind_of,
    read_dicom_header,
    shows_label,
    unread_object,
)
from wsi_ncmi.slides.dicom_series import Instance, group_by_slide, may_be_dicom
from wsi_ncmi.slides.found import FoundSlide, shown
from wsi_ncmi.slides.identity import (
    FLAT_EXTENSIONS,
    has_base_extension,
    has_slide_extension,
    shown_path,
    slide_id_of,
    slide_key,
    unread_format,
)
from wsi_ncmi.slides.pseudonyms import pseudonym
from wsi_ncmi.slides.registry import companions_of, refusal
from wsi_ncmi.slides.side_pictures import TIFF_EXTENSIONS, is_side_picture

_LOG = logging.getLogger(__name__)

_COMPANION_IMAGE = re.compile(rb"=\s*([^\r\n=]+\.(?:jpg|jpeg|opt))\s*$", re.IGNORECASE | re.MULTILINE)
_INDEX_FILE_BYTES = 1 << 20
# What stands in a folder that a tool wrote into, and the names of its folders of pictures and features.
_RESULTS = (
    (r"ledger\.(csv|jsonl)|predictions\.csv", r"features|tissue|(thumbnails|heatmaps)(@.*)?"),  # wsi-ncmi
    (r"process_list_autogen\.csv|stitches|heatmap_(raw|production)_results",
     r"masks|patches|stitches|heatmap_(raw|production)_results"),  # CLAM
    (r"_(config|logs)_segmentation\..*|contours(_geojson)?",
     r"thumbnails|contours(_geojson)?|.*x_\d+px_\d+px_overlap"),  # TRIDENT
    (r".*\.qpproj", r"data|classifiers"),  # QuPath
)  # fmt: skip
# Remarks on what is left out.
_OUTPUT = "of results left out of the search ({}); name one as the folder of slides to search it."
_PICTURE = "of a slide's label, glass or overview left out ({}); list their ids in --list to read them."
_OTHER_OBJECT = "that {} no whole-slide {} left out: {}."
_COPY = "left out, as the same object of the same slide lies elsewhere ({})."
_CONVERTED = "of formats that most often aren't read left out ({}): files of the same name stand beside them."
_NOUNS = {_OUTPUT: "folder", _PICTURE: "picture", _COPY: "DICOM file", _CONVERTED: "slide"}
_NAMED = 5


def find_slides(
    root: Path,
    *,
    listed: Collection[str] = (),
    remark: Callable[[str], None] = _LOG.warning,
    patient_key: bytes | None = None,
) -> tuple[FoundSlide, ...]:
    """Lists the slides of a folder in the order of their paths.

    Multi-file slides count once: MRXS with its data folder, VMS/VMU with their JPEG files, DICOM objects of
    a series and pyramid (represented by the largest file) wherever they lie. Files are opened only where
    their name leaves it open that they are DICOM. Not searched are hidden files, folders that a job or
    another tool wrote into, and pictures of a slide's label or glass beside it (patient data as a rule).
    What can't be read whatever it holds is listed with a problem, so that nothing is lost unseen: folders
    that can't be listed, links that lead nowhere, pipes and devices, formats without a reader, names that
    results can't bear.

    Args:
        root: A folder, or a single slide file.
        listed: Ids that the user asks for; their files are slides whatever they look like.
        remark: Told in one sentence of each kind of files that was left out.
        patient_key: Key of the pseudonyms of DICOM patients; without one nothing of the patient is read.

    Returns:
        The slides, sorted by their relative path.

    Raises:
        InputError: ``root`` does not exist or can't be listed.
    """
    if not root.exists():
        raise InputError(f"There is no file or folder {root}; give the folder that holds the slides.")
    if not root.is_dir() or refusal(root.name):
        return (shown(_single(root, patient_key), ""),)
    search = _Search(frozenset(map(slide_key, listed)), patient_key)
    seen: set[tuple[int, int]] = set()
    # Linked folders wait until all real ones are walked, so that a folder is listed under its real name.
    queue: list[tuple[Path, str]] = [(root, "")]
    linked: list[tuple[Path, str]] = []
    while queue or linked:
        folder, prefix = queue.pop() if queue else linked.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise InputError(f"The folder {root} can't be listed ({error.strerror}).") from error
            name = shown_path(folder.name)[0]
            problem = f"The folder {name} can't be listed ({plain_reason(error, folder)}); "
            search.add(FoundSlide(folder, prefix[:-1], problem=problem + "check its permissions."), "")
            continue
        if prefix and any(entry.name == OUTPUT_MARKER for entry in entries):
            search.leave_out(_OUTPUT, prefix[:-1])
            continue
        for name, is_link in search.look_at(folder, prefix, entries).items():
            (linked if is_link else queue).append((folder / name, f"{prefix}{name}/"))
        linked.sort(key=lambda pair: pair[1])
    search.finish()
    search.tell(remark)
    return tuple(sorted(search.found, key=lambda slide: slide.relative))


def _single(root: Path, patient_key: bytes | None) -> FoundSlide:
    """One named file, as the same slide that its folder's listing would give."""
    if may_be_dicom(root.name) and root.is_file():
        search = _Search(frozenset(), patient_key)
        with os.scandir(root.parent) as scan:
            search.look_at(root.parent, "", sorted(scan, key=lambda entry: entry.name))
        search.finish()
        for slide in search.found:
            if root in (slide.path, *slide.companions):
                return slide
    problem = _refusal(root.name) or (_waits(root) if root.is_file() else _irregular(root))
    return FoundSlide(root, root.name, () if problem else _companions_of(root), problem)


@dataclass
class _Search:
    """What a search has found so far.

    Attributes:
        listed: Ids that the user asks for.
        patient_key: Key of the pseudonyms of patients, or None.
        found: The slides.
        instances: DICOM images of all folders.
        others: Further DICOM objects by kind.
        left_out: Remark → paths that it is about.
    """

    listed: frozenset[str]
    patient_key: bytes | None
    found: list[FoundSlide] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, slide: FoundSlide, prefix: str) -> None:
        self.found.append(shown(slide, prefix))

    def leave_out(self, why: str, relative: str) -> None:
        self.left_out[why].append(shown_path(relative)[0])

    def tell(self, remark: Callable[[str], None]) -> None:
        for why, paths in self.left_out.items():
            named = ", ".join(sorted(paths)[:_NAMED]) + (", …" if len(paths) > _NAMED else "")
            remark(f"{counted(len(paths), _NOUNS[why])} {why.format(named)}")
        if self.others:
            kinds = ", ".join(f"{number} × {kind}" for kind, number in sorted(self.others.items()))
            words = ("is", "image") if self.others.total() == 1 else ("are", "images")
            remark(f"{counted(self.others.total(), 'DICOM object')} {_OTHER_OBJECT.format(*words, kinds)}")

    def finish(self) -> None:
        """Makes slides of the DICOM objects, when all folders were searched."""
        slides, copies = group_by_slide(sorted(self.instances, key=lambda each: each.relative))
        for each in copies:
            self.leave_out(_COPY, each.relative)
        for members in slides:
            if all(shows_label(each.header) for each in members):
                for each in members:
                    self.leave_out(_PICTURE, each.relative)
                continue
            main, *others = members
            faults = (shown(FoundSlide(each.path, each.relative), "").problem for each in others)
            problem = next(filter(None, faults), "")
            files = tuple(each.path for each in others)
            self.add(FoundSlide(main.path, main.relative, files, problem, tuple(members)), "")

    def _takes_dicom(self, path: Path, relative: str) -> bool:
        """Whether a file is a DICOM object; notes what of."""
        if not may_be_dicom(path.name):
            return False
        wanted = IDENTIFYING if self.patient_key is None else IDENTIFYING + PATIENT
        try:
            header = read_dicom_header(path, wanted)
            size = path.stat().st_size
        except OSError:  # listed on its own, with the problem when it is opened
            return False
        except SlideOpenError as error:
            self.add(FoundSlide(path, relative, problem=str(error)), "")
            return True
        if header is None:
            return False
        if is_other_object(header):
            self.others[kind_of(header)] += 1
        elif problem := unread_object(path.name, header):
            self.add(FoundSlide(path, relative, problem=problem), "")
        else:
            if self.patient_key is not None:
                patient, issuer = (header.pop(keyword, "") for keyword in PATIENT)
                header[PSEUDONYM] = pseudonym(self.patient_key, patient, issuer)
            self.instances.append(Instance(path, relative, size, header))
        return True

    def look_at(self, folder: Path, prefix: str, entries: Sequence[os.DirEntry[str]]) -> dict[str, bool]:
        """Takes the slides of one folder; gives the subfolders to search, True for links."""
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        folders = _folders(entries)
        files = {}
        for entry in entries:
            if entry.name not in folders:
                problem = "" if _is_regular(entry) else _irregular(folder / entry.name)
                if not problem or has_slide_extension(entry.name) or unread_format(entry.name):
                    files[entry.name] = problem
        for slide in self._slides_of(folder, prefix, files):
            self.add(slide, prefix)
        for name in [name for name in folders if unread_format(name)]:
            self._unread_slide(folder / name, prefix, files)
            del folders[name]
        names = {entry.name for entry in entries}
        for signs, results in _RESULTS:
            if any(re.fullmatch(signs, name) for name in names):
                for name in [name for name in folders if re.fullmatch(results, name)]:
                    self.leave_out(_OUTPUT, prefix + name)
                    del folders[name]
        of_slides = {slide_id_of(name) for name in files if name.lower().endswith(".mrxs")}
        of_slides |= {f"_{name[:-4]}_" for name in files if name.lower().endswith(".vsi")}
        return {name: is_link for name, is_link in folders.items() if name not in of_slides}

    def _slides_of(self, folder: Path, prefix: str, files: Mapping[str, str]) -> list[FoundSlide]:
        slides: list[FoundSlide] = []
        if "Slidedat.ini" in files:  # else its parent's .mrxs would have claimed this folder
            name = shown_path(folder.name)[0]
            problem = f"{name} holds MIRAX data without its file {name}.mrxs; put that beside the folder."
            slides.append(FoundSlide(folder / "Slidedat.ini", "Slidedat.ini", problem=problem))
        names = [name for name in files if has_slide_extension(name) and not unread_format(name)]
        ids = {slide_id_of(name) for name in names if not name.lower().endswith(FLAT_EXTENSIONS)}
        plain = (*FLAT_EXTENSIONS, *TIFF_EXTENSIONS)
        scanned = {slide_id_of(name) for name in names if not name.lower().endswith(plain)}
        hidden: set[str] = set()
        for name, problem in files.items():
            if problem:
                slides.append(FoundSlide(folder / name, name, problem=problem))
            elif unread_format(name):
                self._unread_slide(folder / name, prefix, files)
            elif name.lower().endswith((".vms", ".vmu")):
                hidden |= _named_in_index(folder / name)
            elif self._takes_dicom(folder / name, prefix + name):
                hidden.add(name)
        for name in names:
            path = folder / name
            if name in hidden or files[name]:
                continue
            if not self._is_listed(prefix + name) and is_side_picture(path, ids, scanned):
                self.leave_out(_PICTURE, prefix + name)
            else:
                slides.append(FoundSlide(path, name, _companions_of(path), _waits(path)))
        return slides

    def _is_listed(self, relative: str) -> bool:
        names = relative.rsplit("/", 1)[-1], relative.replace("/", "__")
        return any(slide_key(name) in self.listed for name in names)

    def _unread_slide(self, path: Path, prefix: str, files: Mapping[str, str]) -> None:
        stem = path.name[: path.name.rindex(".")]
        if any(has_base_extension(name) and slide_id_of(name) in (stem, slide_id_of(stem)) for name in files):
            self.leave_out(_CONVERTED, prefix + path.name)
        else:
            problem = _refusal(path.name)
            self.add(FoundSlide(path, path.name, () if problem else _companions_of(path), problem), prefix)


def _folders(entries: Sequence[os.DirEntry[str]]) -> dict[str, bool]:
    """Folder names, True for links."""
    folders: dict[str, bool] = {}
    for entry in entries:
        try:
            if entry.is_dir():
                folders[entry.name] = entry.is_symlink()
        except OSError:  # a link to itself; it is listed as a file with that problem
            continue
    return folders


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _irregular(path: Path) -> str:
    """Why something that is neither file nor folder can't be opened; opening a pipe would wait for ever."""
    name = shown_path(path.name)[0]
    if not path.exists():
        return f"{name} is a link that leads nowhere; repair or remove it."
    return f"{name} is {irregular_kind(path)}, not a file; remove it."


def _in_the_way(folder: Path, entries: Sequence[os.DirEntry[str]]) -> str:
    """Why MIRAX's reader, which opens every file of a folder, would wait for ever; empty if not."""
    folders = _folders(entries)
    odd = (folder / e.name for e in entries if e.name not in folders and not _is_regular(e))
    return next((_irregular(path) for path in odd if path.exists()), "")


def _waits(path: Path) -> str:
    """Why opening a slide of MIRAX or Hamamatsu would wait for ever: a pipe among its files."""
    data = path.with_name(slide_id_of(path.name))
    if path.name.lower().endswith(".mrxs") and data.is_dir():
        try:
            with os.scandir(data) as scan:
                return _waits_at(path.name, _in_the_way(data, sorted(scan, key=lambda entry: entry.name)))
        except OSError:  # told when it is opened
            return ""
    if path.name.lower().endswith((".vms", ".vmu")):
        named = (path.with_name(name) for name in sorted(_named_in_index(path)))
        odd = (file for file in named if file.exists() and irregular_kind(file))
        return next((_waits_at(path.name, _irregular(file)) for file in odd), "")
    return ""


def _waits_at(name: str, in_the_way: str) -> str:
    return in_the_way and f"{shown_path(name)[0]} is read together with the files beside it, and {in_the_way}"


def _refusal(name: str) -> str:
    return refusal(shown_path(name)[0])


def _companions_of(path: Path) -> tuple[Path, ...]:
    lower = path.name.lower()
    if lower.endswith(".mrxs"):
        folder = path.with_name(slide_id_of(path.name))
        return tuple(sorted(file for file in folder.glob("*") if file.is_file())) if folder.is_dir() else ()
    if lower.endswith((".vms", ".vmu")):
        named = (path.with_name(name) for name in sorted(_named_in_index(path)))
        return tuple(file for file in named if file.is_file())
    return companions_of(path)


def _named_in_index(path: Path) -> set[str]:
    try:
        with path.open("rb") as handle:
            text = handle.read(_INDEX_FILE_BYTES)
    except OSError:  # the slide itself will be listed with this problem
        return set()
    return {match.decode("utf-8", "replace").strip() for match in _COMPANION_IMAGE.findall(text)}
