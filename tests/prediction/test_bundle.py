"""The bundle: what is written is what is loaded; everything that was tampered with is refused in a sentence."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from tests.prediction.models import COLOUR, abstaining, export, make_bundle, sample, write_run
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import PRESETS, build_loss, list_losses, loss_config
from wsi_ncmi.mil import build_aggregator, list_models, model_config
from wsi_ncmi.prediction import ModelBundle, load_bundle, load_model
from wsi_ncmi.prediction.ood import SlideProperties
from wsi_ncmi.prediction.outputs import prediction_notes
from wsi_ncmi.prediction.pages import write_prediction_page, write_slide_page
from wsi_ncmi.prediction.slide_prediction import predict_slide
from wsi_ncmi.training.bundle_io import sums_of
from wsi_ncmi.training.checkpoint import load_trained, write_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "ncmi")


@pytest.fixture(scope="module")
def bundle(run: Path) -> ModelBundle:
    return make_bundle(run)


@pytest.fixture
def folder(bundle: ModelBundle, run: Path, tmp_path: Path) -> Path:
    return export(bundle, run, tmp_path / "bundle")


def reseal(folder: Path) -> None:
    """What a forger does who knows of SHA256SUMS."""
    (folder / "SHA256SUMS").unlink()
    names = [path for path in folder.rglob("*") if path.is_file()]
    (folder / "SHA256SUMS").write_bytes(
        sums_of({path.relative_to(folder).as_posix(): path.read_bytes() for path in names})
    )


def edit_manifest(folder: Path, **values: object) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**manifest, **values}))
    reseal(folder)


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_what_is_written_is_what_is_loaded(bundle: ModelBundle, run: Path, tmp_path: Path, name: str) -> None:
    found = load_bundle(export(bundle, run, tmp_path / name))
    features = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    ours, theirs = bundle.predict(features), found.predict(features)
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    np.testing.assert_array_equal(ours.attention, theirs.attention)
    np.testing.assert_array_equal(
        bundle.ensemble.tile_probabilities(features), found.ensemble.tile_probabilities(features)
    )
    assert found.digest == bundle.digest
    assert (found.classes, found.calibration) == (bundle.classes, bundle.calibration)
    assert dict(found.summary) == dict(bundle.summary)
    assert found.ood is not None
    assert bundle.ood is not None
    assert found.ood.bounds == bundle.ood.bounds
    shifted = sample(99, shift=3.0).tiles
    assert found.ood.score(shifted) == bundle.ood.score(shifted)
    properties = SlideProperties(2.0, {"density": 9.0})
    assert found.ood.flags(shifted, properties) == bundle.ood.flags(shifted, properties)


def test_equal_bundles_are_equal_files(bundle: ModelBundle, run: Path, tmp_path: Path) -> None:
    first, second = (export(bundle, run, tmp_path / f"{i}.zip") for i in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def test_the_sums_are_those_of_sha256sum(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_zip_of_the_folder_itself_is_read_too(folder: Path, bundle: ModelBundle) -> None:
    shutil.make_archive(str(folder.parent / "again"), "zip", folder.parent, folder.name)
    assert load_bundle(folder.parent / "again.zip").digest == bundle.digest


def test_a_run_folder_is_a_model_without_calibration(run: Path) -> None:
    found = load_model(run)
    assert found.calibration.temperature == 1.0
    assert found.calibration.abstain_below == 0.0
    assert found.ood is None


def test_a_bundle_of_0_1_0_at_a_limit_is_read_and_named(
    folder: Path, bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    old = {"temperature": 0.0500003, "abstain_below": 0.9999987, "fitted_on": "3 folds", "slides": 15}
    edit_manifest(folder, calibration=old)
    found = load_bundle(folder)
    assert found.calibration.to_json() == old  # and with it the digest, by which predictions are kept
    assert "temperature 0.050 is a limit" in caplog.text
    assert "export the model again" in prediction_notes([], found, {})[1 + 1]
    slide, _ = predict_slide(found, "s", sample(3).tiles, SlideProperties(0.5, COLOUR), abstaining())
    write_slide_page(folder.parent / "s.html", slide, found, {}, back="x.html")
    write_prediction_page(
        folder.parent / "all.html", [slide], found, thumbnails=folder, patients=None,
        provenance={"software": "", "python": "", "platform": "", "utc": ""},
    )  # fmt: skip
    for page in ("s.html", "all.html"):
        words = (folder.parent / page).read_text()
        assert "100.0 %" not in words
        assert "15 validation slides" in words
    assert "is a limit of the search" in words
    assert "0.999998700" in words


def test_the_spread_is_of_calibrated_probabilities(bundle: ModelBundle) -> None:
    each = np.stack([member.predict(sample(3).tiles)[0] for member in bundle.ensemble.members])
    powers = each ** (1 / bundle.calibration.temperature)
    expected = (powers / powers.sum(axis=1, keepdims=True)).std(axis=0)
    np.testing.assert_allclose(bundle.predict(sample(3).tiles).spread, expected, rtol=1e-6)
    assert not np.allclose(expected, each.std(axis=0))


def test_a_changed_byte_anywhere_is_refused(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(InputError) as error:
            load_bundle(folder)
        assert "\n" not in str(error.value)
        path.write_bytes(content)
    load_bundle(folder)


def test_missing_and_unlisted_files_are_refused(folder: Path) -> None:
    weights = folder / "members" / "fold_1-seed_0" / "model.safetensors"
    weights.rename(folder.parent / "kept")
    with pytest.raises(InputError, match=r"lacks members/fold_1-seed_0/model\.safetensors"):
        load_bundle(folder)
    (folder.parent / "kept").rename(weights)
    shutil.copytree(weights.parent, folder / "members" / "fold_9-seed_0")
    with pytest.raises(InputError, match=r"fold_9-seed_0.*does not list"):
        load_bundle(folder)


def test_a_wrong_class_list_is_refused(folder: Path) -> None:
    edit_manifest(folder, classes=["b", "a"])
    with pytest.raises(
        InputError, match=r"classes are b, a, but its model fold_0-seed_0 was trained on a, b"
    ):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("schema", "remedy"),
    [("wsi-ncmi-bundle/2", "update wsi-ncmi"), ("something/1", "export the model again")],
)
def test_another_schema_is_refused(folder: Path, schema: str, remedy: str) -> None:
    edit_manifest(folder, schema=schema)
    with pytest.raises(InputError, match=rf"{schema}.*reads 'wsi-ncmi-bundle/1'; {remedy}"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"members": []}, "lists no model"),
        ({"members": ["fold_7-seed_0"]}, "lacks its files"),
        ({"features": {"encoder": "timm:resnet18"}}, "different encoders or grids"),
        ({"calibration": {"temperature": 0, "abstain_below": 0, "fitted_on": "", "slides": 0}}, "can't be"),
        ({"calibration": {}}, "no readable calibration"),
        ({"reference": {"slides": 3}}, "can't be read"),
        ({"classes": None}, "lacks or garbles"),
    ],
)
def test_a_manifest_that_contradicts_is_refused(folder: Path, values: dict[str, object], words: str) -> None:
    edit_manifest(folder, **values)
    with pytest.raises(InputError, match=words):
        load_bundle(folder)


@pytest.mark.parametrize("encoder", [-1, "x", [1], True])
def test_a_model_whose_encoder_is_no_table_is_refused(folder: Path, encoder: object) -> None:
    path = folder / "members" / "fold_0-seed_0" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encoder": encoder}))
    reseal(folder)
    with pytest.raises(InputError, match="different encoders or grids"):
        load_bundle(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    member = folder / "members" / "fold_0-seed_0"
    tensors = load_file(member / "model.safetensors")
    tensors["aggregator.score.weight"].reshape(-1)[0] = value
    save_file(tensors, member / "model.safetensors")
    description = json.loads((member / "model.json").read_text())
    description["weights_sha256"] = hashlib.sha256((member / "model.safetensors").read_bytes()).hexdigest()
    (member / "model.json").write_text(json.dumps(description))
    reseal(folder)
    with pytest.raises(InputError, match=r"not finite in aggregator\.score\.weight"):
        load_bundle(folder)


def edit_model(folder: Path, **values: object) -> None:
    file = folder / "members" / "fold_0-seed_0" / "model.json"
    content = json.loads(file.read_text())
    for name, value in values.items():
        at, _, key = name.rpartition("__")
        (content[at] if at else content)[key] = value
    file.write_text(json.dumps(content))
    reseal(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"in_features": 10**9}, r"claimed to be \(1000000000,?.*\), and stored as \(6,"),
        ({"model__hidden": 10**9}, "claimed to be"),
        ({"model__attention": 10**9}, "claimed to be"),
        ({"model__hidden": 9}, "claimed to be"),
        ({"model": {"name": "vit", "vit": {"layers": 10**9}}}, "more than the .* tensors stored"),
        ({"model": {"name": "acmil", "acmil": {"branches": 10**9}}}, "claimed to"),
        ({"loss__symbols": 1 << 20}, "loss.symbols is claimed to be 1048576"),
        ({"classes": [str(n) for n in range(10**5)]}, "number of classes is claimed to be 100000"),
        ({"classes": ["a", "a", "a"]}, "no list of names that differ"),
        ({"classes": "abc"}, "no list of names that differ"),
        ({"loss": "ncmi"}, "isn't a model that this version can load"),
        ({"in_features": float("inf")}, "isn't a model that this version can load"),
        ({"in_features": 10**30}, "isn't a model that this version can load"),
        ({"in_features": -1}, "isn't a model|at least|above"),
    ],
)
def test_claimed_sizes_are_held_against_the_stored_tensors_first(
    folder: Path, values: dict[str, object], words: str
) -> None:
    edit_model(folder, **values)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=words) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (200 << 10)  # in KiB


@pytest.mark.parametrize("model", [info.name for info in list_models()])
def test_every_model_is_checked_and_loaded(model: str, tmp_path: Path) -> None:
    options = model_config(name=model)
    aggregator = build_aggregator(options, 5, 3)
    losses = [loss_config(name=name) for name in [info.name for info in list_losses()]]
    losses += [loss_config(preset=preset) for preset in PRESETS]
    losses += [loss_config(code_words=kind) for kind in ("means", "learned")]
    losses += [loss_config(bank_size=100_000), loss_config(symbols=5000)]
    for loss in losses if model == "abmil" else losses[:2]:
        criterion = build_loss(loss, 3, aggregator.embedding_width, (5, 4, 3))
        write_trained(
            tmp_path, aggregator, criterion, classes=("a", "b", "c"), model=options, loss=loss,
            class_counts=(5, 4, 3), extra={},
        )  # fmt: skip
        found = load_trained(tmp_path).aggregator.state_dict()
        assert all(torch.equal(found[key], value) for key, value in aggregator.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {name: tensor.bfloat16() for name, tensor in t.items()}, "can't be read"),
        (lambda t: {name: tensor.half() for name, tensor in t.items()}, "slide.mean is float16, not float32"),
        (lambda t: t | {"tile.mean": t["tile.mean"].int()}, "tile.mean is int32, not float32"),
        (lambda t: t | {"tile.mean": torch.tensor(1.0)}, "shapes that don't belong together"),
        (lambda t: t | {"tile.mean": t["tile.mean"][None], "tile.scale": t["tile.scale"][None]}, "belong"),
        (lambda t: {name: tensor[:0] for name, tensor in t.items()}, "belong together"),
        (lambda t: {f"x.{name}": tensor for name, tensor in t.items()}, "can't be read .*slide.mean"),
        (lambda t: {}, "can't be read"),
        (
            lambda t: t | {"slide.mean": t["slide.mean"] * torch.nan},
            "slide.mean holds numbers that aren't finite",
        ),
        (lambda t: t | {"slide.noise": torch.zeros(1)}, "slide.noise is 0, not above 0"),
        (None, "can't be read"),
    ],
)
def test_statistics_of_another_kind_are_one_sentence(folder: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    file = folder / "reference.safetensors"
    file.write_bytes(b"text" if change is None else save_tensors(change(load_tensors(file.read_bytes()))))
    reseal(folder)
    with pytest.raises(InputError, match=words) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


class Payload:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_the_payload_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "pwned")))
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("forged_json", [False, True])
def test_a_pickle_in_place_of_weights_is_refused_and_not_run(
    folder: Path, tmp_path: Path, forged_json: bool
) -> None:
    member = folder / "members" / "fold_0-seed_0"
    buffer = io.BytesIO()
    torch.save({"x": Payload(tmp_path / "pwned")}, buffer)
    (member / "model.safetensors").write_bytes(buffer.getvalue())
    if forged_json:
        config = json.loads((member / "model.json").read_text())
        config["weights_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        (member / "model.json").write_text(json.dumps(config))
    reseal(folder)
    with pytest.raises(InputError, match="can load" if forged_json else "altered"):
        load_bundle(folder)
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_beside_the_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.pt").write_bytes(pickle.dumps(Payload(tmp_path / "pwned")))
    reseal(folder)
    with pytest.raises(
        InputError, match=r"weights\.pt, which is no file of a model bundle and might carry code"
    ):
        load_bundle(folder)
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_as_the_model_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Payload(tmp_path / "pwned")}, tmp_path / "model.pt")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "pwned")))
    for name in ("model.pt", "model.pkl"):
        with pytest.raises(InputError):
            load_model(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_names_that_lead_out_of_a_zip_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("../out.json", "/etc/passwd", "members/../../x/model.json"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            for path in folder.rglob("*"):
                if path.is_file():
                    archive.write(path, path.relative_to(folder))
            archive.writestr(name, "x")
        with pytest.raises(InputError, match="no file of a model bundle"):
            load_bundle(tmp_path / "bad.zip")


def test_links_are_refused(folder: Path) -> None:
    card = folder / "MODEL_CARD.md"
    card.rename(folder.parent / "card")
    card.symlink_to(folder.parent / "card")
    with pytest.raises(InputError, match="is a link"):
        load_bundle(folder)


def test_a_zip_that_claims_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_ncmi.training.bundle_io.MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", b"0" * 1001)
    with pytest.raises(InputError, match="claims 1,001 bytes"):
        load_bundle(tmp_path / "big.zip")


def test_a_zip_that_inflates_beyond_measure_is_refused_before_it_is_read(
    folder: Path, tmp_path: Path
) -> None:
    path, members = tmp_path / "bomb.zip", [file for file in folder.rglob("*") if file.is_file()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in members:
            archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr("portable/model.onnx", bytes(80 << 20))
    tracemalloc.start()
    with pytest.raises(
        InputError, match=r"claim to inflate to 8.*of which portable/model\.onnx has 83,886,080"
    ):
        load_bundle(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_files_that_are_no_zip_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(InputError):
        load_bundle(tmp_path / "model.zip")
    with pytest.raises(InputError, match="There is no bundle"):
        load_bundle(tmp_path / "nowhere")


def test_nothing_is_written_over_unasked(
    bundle: ModelBundle, run: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="exists already"):
        export(bundle, run, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    from wsi_ncmi.training import write_bundle

    with pytest.raises(InputError, match="other things"):
        write_bundle(tmp_path / "mine", {"bundle.json": b"{}"}, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_bundle_whose_replacement_fails_at_the_last_step_is_there_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_ncmi.training import write_bundle

    path = tmp_path / "model"
    write_bundle(path, {"bundle.json": b"old"})
    replace_file = os.replace

    def fails(source: Path, target: Path) -> None:
        if target == path:
            monkeypatch.setattr(os, "replace", replace_file)
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(InputError, match="No space left"):
        write_bundle(path, {"bundle.json": b"new"}, overwrite=True)
    assert (path / "bundle.json").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_the_card_says_what_matters(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    for words in (
        "not a medical device",
        "Intended use",
        "Temperature 2.000",
        "| macro f1 | 0.900 | – |",
        "24 training slides",
    ):
        assert words in card
    assert r"a\|b" in card  # a pipe does not break the table


def test_features_of_every_precision_and_places_of_other_tiles(bundle: ModelBundle) -> None:
    tiles = np.round(sample(3).tiles * 8) / 8
    expected = bundle.predict(tiles).probabilities
    assert (bundle.predict(torch.from_numpy(tiles).bfloat16()).probabilities - expected).max() < 0.05
    with pytest.raises(InputError, match="NaN or infinity"):
        bundle.predict(tiles.astype(np.float64) * 1e200)
    with pytest.raises(
        InputError, match=r"coordinates must be .*, a place for every tile, got shape \(1, 2\)"
    ):
        bundle.predict(tiles, np.zeros((1, 2)))
