"""Signatures of bundles: those that minisign 0.11 and openssl made are accepted, anything else is refused."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.prediction.models import export, make_bundle, write_run
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction import load_bundle, load_model
from wsi_ncmi.training.bundle_signatures import KEY_VARIABLE, check_signature

# minisign -G -W; minisign -S -W -m SUMS -t "abc def", of the file "text\n".
KEY = """untrusted comment: minisign public key 1368536E3577710A
RWQKcXc1blNoEzOF3QtF+sssmImrFutgH4VOBlmfbBxfo1Ul3wp6Z7n1
"""
SIGNATURE = """untrusted comment: signature from minisign secret key
RUQKcXc1blNoE8PwmLMukESFnm8m5SDFRu0cytfWrLFaPEYFmsSi2lricFD70yH+2akly3gRM57ISr2Ptx+fazVUE8Q7sAqlCg0=
trusted comment: abc def
v1o5H+3xzzxnaq4CXTwmfoIQdeuInFmDFEFDjLkcYN4P8Y4yJUUUkYXa7c2GckOBVZKL4yTfE03TNV/PaG1OCA==
"""
TEXT = b"text\n"


def altered(line: int, place: int) -> str:
    """The signature with one byte of a line changed."""
    lines = SIGNATURE.splitlines()
    content = bytearray(base64.b64decode(lines[line]))
    content[place] ^= 1
    lines[line] = base64.b64encode(content).decode()
    return "\n".join(lines) + "\n"


@pytest.fixture
def minisign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with its key and signature; the key is configured."""
    (tmp_path / "SUMS").write_bytes(TEXT)
    (tmp_path / "SUMS.minisig").write_text(SIGNATURE)
    (tmp_path / "site.pub").write_text(KEY)
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "site.pub"))
    return tmp_path / "SUMS"


def check(file: Path, content: bytes = TEXT) -> None:
    check_signature(file, io.BytesIO(content), Path("model.zip"))


def test_a_signature_by_minisign_is_accepted(minisign: Path) -> None:
    check(minisign)
    minisign.with_name("site.pub").write_text(KEY.splitlines()[1])  # as minisign -P takes it
    check(minisign)


@pytest.mark.parametrize(
    ("signature", "content"),
    [
        (SIGNATURE, b"texu\n"),
        (SIGNATURE, b""),
        (altered(1, 20), TEXT),
        (altered(1, 4), TEXT),  # another key's number
        (altered(3, 0), TEXT),
        (SIGNATURE.replace("abc", "abd"), TEXT),  # the trusted comment
    ],
)
def test_what_minisign_did_not_sign_is_refused(minisign: Path, signature: str, content: bytes) -> None:
    minisign.with_name("SUMS.minisig").write_text(signature)
    with pytest.raises(InputError, match=r"model\.zip is not what was signed: SUMS\.minisig"):
        check(minisign, content)


def test_another_key_is_refused(minisign: Path) -> None:
    key = bytearray(base64.b64decode(KEY.splitlines()[1]))
    key[11] ^= 1  # of the same number
    minisign.with_name("site.pub").write_text(base64.b64encode(key).decode())
    with pytest.raises(InputError, match=r"not what was signed|can't be read"):
        check(minisign)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("SUMS.minisig", None, r"isn't signed \(SUMS.minisig is missing\)"),
        ("SUMS.minisig", "", "a line is missing|can't be read"),
        ("SUMS.minisig", SIGNATURE.replace("RUQK", "RWQK"), "sign with minisign 0.10 or newer"),
        ("SUMS.minisig", SIGNATURE.replace("RUQK", "%%%%"), "can't be read"),
        ("SUMS.minisig", SIGNATURE.replace("RUQK", ""), "no form that minisign writes"),
        ("site.pub", None, "can't be read .No such file"),
        ("site.pub", "hello", "can't be read"),
        ("site.pub", "", "can't be read"),
        (
            "site.pub",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            r"SUMS\.sig is missing",
        ),
    ],
)
def test_files_of_another_kind_are_one_sentence(
    minisign: Path, file: str, text: str | None, words: str
) -> None:
    place = minisign.with_name(file)
    if text is None:
        place.unlink()
    else:
        place.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        check(minisign)
    assert "\n" not in str(caught.value)


def test_without_openssl_nothing_is_taken_for_signed(minisign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(minisign.parent))
    with pytest.raises(InputError, match="needs the program openssl"):
        check(minisign)


@pytest.fixture
def sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private key as cosign's, whose public part is configured."""
    key, public = tmp_path / "cosign.key", tmp_path / "cosign.pub"
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True
    )
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    monkeypatch.setenv(KEY_VARIABLE, str(public))
    return key


def signed(file: Path, key: Path) -> None:
    """Writes FILE.sig as ``cosign sign-blob`` does."""
    done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key, file], check=True, capture_output=True)
    file.with_name(f"{file.name}.sig").write_bytes(base64.b64encode(done.stdout))


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_only_signed_bundles_are_loaded(
    tmp_path: Path, sign: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", folds=1)
    bundle = export(make_bundle(run, reference=False), run, tmp_path / name)
    file = bundle if bundle.is_file() else bundle / "SHA256SUMS"
    with pytest.raises(InputError, match="isn't signed"):
        load_bundle(bundle)
    signed(file, sign)
    (tmp_path / "current").symlink_to(name)
    found = load_bundle(bundle)
    assert load_model(tmp_path / "current").digest == found.digest
    with pytest.raises(InputError, match="is no bundle, and WSI_NCMI_MODEL_KEY allows only"):
        load_model(run)
    export(make_bundle(run), run, tmp_path / f"other.{name}")
    other = tmp_path / f"other.{name}"
    other = other if other.is_file() else other / "SHA256SUMS"
    shutil.copy(file.with_name(f"{file.name}.sig"), other.with_name(f"{other.name}.sig"))
    with pytest.raises(InputError, match="is not what was signed"):
        load_bundle(tmp_path / f"other.{name}")
    monkeypatch.delenv(KEY_VARIABLE)  # a signature that nobody asks for does no harm
    assert load_bundle(bundle).digest == found.digest
    if bundle.is_dir():
        shutil.make_archive(str(tmp_path / "again"), "zip", bundle)
        assert load_bundle(tmp_path / "again.zip").digest == found.digest


def test_a_folder_whose_files_are_not_those_signed_is_refused(tmp_path: Path, sign: Path) -> None:
    run = write_run(tmp_path / "run", folds=1)
    bundle = export(make_bundle(run, reference=False), run, tmp_path / "bundle")
    signed(bundle / "SHA256SUMS", sign)
    with (bundle / "MODEL_CARD.md").open("a") as card:
        card.write("more")
    with pytest.raises(InputError, match="was changed after the export"):
        load_bundle(bundle)
