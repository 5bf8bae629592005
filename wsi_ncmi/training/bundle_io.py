"""Files of a model bundle: layout, reading with proof of every hash, atomic writing."""

import hashlib
import io
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import TEMPORARY_SUFFIX, atomic_path, check_inflation
from wsi_ncmi.core.leftovers import remove_leftovers
from wsi_ncmi.training.bundle_signatures import SIGNATURE_SUFFIXES, check_signature

BUNDLE_SCHEMA = "wsi-ncmi-bundle/1"
"""Name and version of the layout."""

MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"
SUMS = "SHA256SUMS"
"""The hashes of all other files, as ``sha256sum --check`` reads them."""

REFERENCE = "reference.safetensors"
"""Statistics of the training slides, for flagging out-of-distribution slides."""

MEMBERS = "members"

_SIGNATURES = tuple(SUMS + suffix for suffix in SIGNATURE_SUFFIXES)

MAX_BYTES = 8 << 30
"""A bundle that claims to be larger is refused before it is read into memory."""

_MEMBER = r"[A-Za-z0-9._-]+"
_KNOWN = re.compile(
    rf"(?:{re.escape(MANIFEST)}|{re.escape(CARD)}|{re.escape(SUMS)}|{re.escape(REFERENCE)}"
    rf"|{MEMBERS}/{_MEMBER}/model\.(?:json|safetensors)"
    rf"|portable/{_MEMBER}\.(?:onnx|torchscript))"
)


def is_known_name(name: str) -> bool:
    """Whether a bundle may hold a file of this path."""
    return _KNOWN.fullmatch(name) is not None and ".." not in name.split("/")


_REMEDY = "export the model again, or get the bundle from its source"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # zip's own zero: equal bundles are equal files
_SUM_LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>.+)")


def read_files(path: Path, *, check_signed: bool = True) -> dict[str, bytes]:
    """Reads a bundle.

    Args:
        path: Folder with ``bundle.json``, or a zip of one; of a link what it points to at first is read, so
            that a change of it meanwhile mixes nothing.
        check_signed: Check the signature where a key is configured.

    Returns:
        Path below the bundle → content, every hash compared with ``SHA256SUMS``.

    Raises:
        InputError: No bundle, a file too many or too few, a changed byte, no signature by the key that is
            configured, or a size beyond all bounds.
    """
    real = path.resolve()
    try:
        found = _read_zip(real, path, check_signed) if real.is_file() else _read_folder(real, path)
    except InputError:
        raise
    except Exception as error:  # an unzipper on someone else's bytes can fail in any way
        reason = " ".join(str(error).split())
        raise InputError(f"The bundle {path} can't be read ({reason}); {_REMEDY}.") from error
    if MANIFEST not in found:
        raise InputError(
            f"{path} is no model bundle (it has no {MANIFEST}); give the folder or zip that 'wsi-ncmi "
            f"export' "
            "wrote."
        )
    if check_signed and real.is_dir():
        check_signature(real / SUMS, io.BytesIO(found.get(SUMS, b"")), path)
    _check_sums(found, path)
    return found


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """The content of ``SHA256SUMS`` for these files."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    return "".join(lines).encode()


def _read_folder(folder: Path, path: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise InputError(
            f"There is no bundle {path}; give the folder or zip that 'wsi-ncmi export' wrote, or a "
            f"run folder."
        )
    names: list[str] = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_symlink() or not (file.is_dir() or file.is_file()):
            raise InputError(f"{path} holds {name}, which is a link and no file of a bundle; {_REMEDY}.")
        if file.is_file() and name not in _SIGNATURES:
            names.append(name)
    _check_names(names, path)
    _check_size(sum((folder / name).stat().st_size for name in names), path)
    return {name: (folder / name).read_bytes() for name in names}


def _read_zip(file: Path, path: Path, check_signed: bool) -> dict[str, bytes]:
    if not zipfile.is_zipfile(file):
        raise InputError(f"{path} is no zip file, so no model bundle; {_REMEDY}.")
    check_inflation(file)
    with file.open("rb") as content, zipfile.ZipFile(content) as archive:
        if check_signed:  # of the file that is read below, whatever has its name by then
            content.seek(0)
            check_signature(file, content, path)
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        names = [entry.filename for entry in entries]
        # A zip of the folder itself has one folder above everything.
        top = {name.split("/", 1)[0] for name in names}
        prefix = f"{top.pop()}/" if len(top) == 1 and MANIFEST not in names else ""
        short = [name.removeprefix(prefix) for name in names]
        if len(set(short)) != len(short):
            raise InputError(f"{path} holds a file twice, which no bundle does; {_REMEDY}.")
        found = {name: e for name, e in zip(short, entries, strict=True) if name not in _SIGNATURES}
        _check_names(list(found), path)
        _check_size(sum(entry.file_size for entry in entries), path)
        return {name: archive.read(entry) for name, entry in found.items()}


def _check_names(names: list[str], path: Path) -> None:
    # Nothing else is ever opened; but a file that nobody needs (a pickle, a script) is refused.
    for name in names:
        if not is_known_name(name):
            raise InputError(
                f"{path} holds {name}, which is no file of a model bundle and might carry code; {_REMEDY}."
            )


def _check_size(total: int, path: Path) -> None:
    if total > MAX_BYTES:
        raise InputError(f"{path} claims {total:,} bytes, more than any bundle has; {_REMEDY}.")


def _check_sums(found: Mapping[str, bytes], path: Path) -> None:
    listed: dict[str, str] = {}
    for line in found.get(SUMS, b"").decode("utf-8", "replace").splitlines():
        match = _SUM_LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{SUMS} of {path} is damaged; {_REMEDY}.")
        listed[match["name"]] = match["sum"]
    present = set(found) - {SUMS}
    if missing := sorted(set(listed) - present):
        raise InputError(f"{path} lacks {missing[0]}, which its {SUMS} lists; {_REMEDY}.")
    if unlisted := sorted(present - set(listed)):
        raise InputError(f"{path} holds {unlisted[0]}, which its {SUMS} does not list; {_REMEDY}.")
    for name in sorted(present):
        if hashlib.sha256(found[name]).hexdigest() != listed[name]:
            raise InputError(
                f"{name} of the bundle {path} was changed after the export (its hash isn't the one in "
                f"{SUMS}); "
                f"{_REMEDY}."
            )


def write_bundle(path: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Writes the files of a bundle to a folder, or to a zip where the path ends in ``.zip``.

    Args:
        path: Where to.
        files: From :func:`bundle_files`.
        overwrite: Replace a bundle that is there.

    Raises:
        InputError: Something is there already, or the place can't be written to.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another --out, or pass --overwrite.")
    if path.is_dir() and not (path / MANIFEST).is_file() and any(path.iterdir()):
        raise InputError(f"{path} is a folder of other things and won't be replaced; choose another --out.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        if path.suffix == ".zip":
            _write_zip(path, files)
        else:
            _write_folder(path, files)
    except OSError as error:
        raise InputError(
            f"The bundle {path} can't be written ({error.strerror or error}); choose another --out."
        ) from error


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    before = temporary.with_name(f"{temporary.stem}0{TEMPORARY_SUFFIX}")
    try:
        for name, content in files.items():
            file = temporary / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as partial:
                partial.write_bytes(content)
        if path.exists():
            os.replace(path, before)
        os.replace(temporary, path)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException:
        if before.exists() and not path.exists():
            os.replace(before, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
