"""Detached signatures of model bundles, checked by OpenSSL before anything of a bundle is used.

What is signed is one file, by the tool's own default: the zip, or ``SHA256SUMS`` of a folder, which lists the
hashes of all other files. Sources: the formats of minisign 0.11 (https://jedisct1.github.io/minisign: Ed25519
of the file's BLAKE2b-512, and of that signature with the trusted comment) and of ``cosign sign-blob`` with a
key pair (ECDSA P-256 of the file's SHA-256, DER in base64).
"""

import base64
import binascii
import hashlib
import os
import shutil
import subprocess
import tempfile
from io import BufferedIOBase
from pathlib import Path

from wsi_ncmi.core.errors import InputError

KEY_VARIABLE = "WSI_NCMI_MODEL_KEY"
"""Environment variable that names the public key; with it, only bundles signed by it are used."""

SIGNATURE_SUFFIXES = (".minisig", ".sig")
"""Of signatures by minisign and cosign."""

_MOST_BYTES = 64 << 10
_TIMEOUT_S = 60.0
# SubjectPublicKeyInfo of a raw Ed25519 key (RFC 8410, section 4).
_ED25519 = bytes.fromhex("302a300506032b6570032100")
_PEM = b"-----BEGIN PUBLIC KEY-----"


def configured_key() -> Path | None:
    """The public key that bundles must be signed with, or None."""
    name = os.environ.get(KEY_VARIABLE, "").strip()
    return Path(name) if name else None


def check_signature(file: Path, content: BufferedIOBase, shown: Path) -> None:
    """Refuses a file that the configured key did not sign; without one nothing is checked.

    Args:
        file: The signed file; its signature lies beside it.
        content: Its content, at the beginning.
        shown: The bundle, for messages.

    Raises:
        InputError: No signature by that key, another content, or a key that can't be read.
    """
    key_file = configured_key()
    if key_file is None:
        return
    key = _read(key_file, f"The key {key_file} of {KEY_VARIABLE}")
    suffix = SIGNATURE_SUFFIXES[1 if _PEM in key else 0]
    signature_file = file.with_name(file.name + suffix)
    if not signature_file.is_file():
        raise InputError(
            f"{shown} isn't signed ({signature_file.name} is missing), and {KEY_VARIABLE} allows only "
            f"bundles signed by {key_file.name}; get the signature from who made the bundle."
        )
    signature = _read(signature_file, f"The signature {signature_file}")
    try:
        if suffix == SIGNATURE_SUFFIXES[0]:
            signed = _minisign(key, signature, hashlib.file_digest(content, "blake2b").digest())
        else:
            digest = hashlib.file_digest(content, "sha256").digest()
            signed = _verifies(key, base64.b64decode(signature, validate=False), digest)
    except (ValueError, IndexError, binascii.Error) as error:
        reason = str(error) or "a line is missing"
        raise InputError(
            f"{signature_file.name} of {shown} or the key {key_file.name} can't be read ({reason})."
        ) from error
    if not signed:
        raise InputError(
            f"{shown} is not what was signed: {signature_file.name} isn't the signature of {file.name} by "
            f"{key_file.name}. Don't use it; get it again from who made it."
        )


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(f"{what} can't be read ({error.strerror}).") from error


def _minisign(key: bytes, signature: bytes, digest: bytes) -> bool:
    """Compares as ``minisign -V`` does: the file, and the trusted comment."""
    public = base64.b64decode(key.split(b"\n")[1 if b"\n" in key.strip() else 0], validate=True)
    _, first, comment, second = signature.split(b"\n")[:4]
    parts = base64.b64decode(first.strip(), validate=True)
    if len(public) != 42 or public[:2] != b"Ed" or len(parts) != 74:
        raise ValueError("it is of no form that minisign writes")
    if parts[:2] != b"ED":
        raise ValueError("it signs the file and not its hash; sign with minisign 0.10 or newer")
    if parts[2:10] != public[2:10]:
        return False
    pem = _PEM + b"\n" + base64.b64encode(_ED25519 + public[10:]) + b"\n-----END PUBLIC KEY-----\n"
    said = comment.removesuffix(b"\r").removeprefix(b"trusted comment: ")
    both = base64.b64decode(second.strip(), validate=True)
    return _verifies(pem, parts[10:], digest, "-rawin") and _verifies(pem, both, parts[10:] + said, "-rawin")


def _verifies(pem: bytes, signature: bytes, content: bytes, *options: str) -> bool:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise InputError(f"{KEY_VARIABLE} needs the program openssl (3.0 or newer); install it.")
    with tempfile.TemporaryDirectory() as folder:
        files = {"inkey": pem, "sigfile": signature, "in": content}
        arguments = [openssl, "pkeyutl", "-verify", "-pubin", *options]
        for name, value in files.items():
            (Path(folder) / name).write_bytes(value)
            arguments += [f"-{name}", str(Path(folder) / name)]
        done = subprocess.run(arguments, capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode == 0 and b"Verified Successfully" in done.stdout:
        return True
    if b"Verification Failure" in done.stdout:
        return False
    raise ValueError(done.stderr.decode("utf-8", "replace").strip().split("\n")[0] or "openssl failed")
