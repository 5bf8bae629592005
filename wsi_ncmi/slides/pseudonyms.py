"""Pseudonyms of patients under a key that the site keeps.

Source: HMAC-SHA256 (RFC 2104, FIPS 198-1), cut to 128 bits (RFC 2104, section 5). Without the key nobody can
try out patient ids, which a plain hash would allow.
"""

import hashlib
import hmac
import logging
import os
import secrets
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.values import is_empty, tidy

_LOG = logging.getLogger(__name__)

_FEWEST_BYTES, _MOST_BYTES = 32, 4096
_HEX_DIGITS = 32
_OTHERS = 0o077


def read_key(path: Path) -> bytes:
    """Reads a key: a file of 32 to 4,096 bytes without blanks around, such as :func:`make_key` makes.

    Raises:
        InputError: There is no such file, or it holds no key.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(_MOST_BYTES + 1).strip()
    except OSError as error:
        raise InputError(
            f"The key of the pseudonyms can't be read from {path} ({error.strerror}); make one, once for a "
            "site, with --new-dicom-key of inventory or --new-key of pseudonymise."
        ) from error
    if not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
        raise InputError(
            f"{path} is no key of pseudonyms: that has {_FEWEST_BYTES} to {_MOST_BYTES} bytes; give the file "
            "that --new-dicom-key or --new-key made."
        )
    if mode & _OTHERS:
        _LOG.warning("%s can be read by others; take that away with: chmod 600 %s", path.name, path.name)
    return key


def make_key(path: Path) -> None:
    """Writes a new random key of 256 bits that only its owner can read; a file that is there stays.

    Raises:
        InputError: There is a file already, or none can be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(
            f"There is a key {path} already, which stays: another one would give every patient a new name. "
            "Leave the flag that makes one out."
        ) from None
    except OSError as error:
        raise InputError(f"No key can be written to {path} ({error.strerror}); name another file.") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")


def pseudonym(key: bytes, patient_id: str, issuer: str) -> str:
    """The name of a patient under a key; empty where there is no patient id.

    Args:
        key: From :func:`read_key`.
        patient_id: Patient ID (0010,0020).
        issuer: Issuer of Patient ID (0010,0021), which tells equal ids of two hospitals apart.

    Returns:
        32 hex digits.
    """
    if is_empty(patient_id):
        return ""
    # No text of DICOM holds a zero byte.
    message = f"{tidy(patient_id)}\0{tidy(issuer)}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_HEX_DIGITS]
