"""The YAML configuration: unknown keys, wrong values, overrides, shipped files, round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ncmi.core.config import commented_yaml, field_help, read_config, to_yaml
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.workflows.config import JobConfig, find_config, load_config, shipped_configs


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configurations_are_valid(name: str) -> None:
    config = load_config(name)
    assert config.losses[0].name == "ncmi"
    assert config.name


def test_the_shipped_cohorts_are_there() -> None:
    assert set(shipped_configs()) >= {
        "demo", "camelyon16", "camelyon17", "bracs", "bracs3", "tcga_nsclc", "tcga_rcc", "tcga_brca", "clam", "stamp", "slideflow",
    }  # fmt: skip


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("training: {epoch: 5}\n")
    with pytest.raises(
        InputError, match=r"'training\.epoch' .*job\.yaml.*there is no key 'epoch'; did you mean 'epochs'"
    ):
        load_config(path)
    path.write_text("grids: {mpp: 1}\n")
    with pytest.raises(InputError, match=r"there is no key 'grids'; did you mean 'grid'"):
        load_config(path)


def test_a_key_like_no_other_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"valid are .*mpp.*tile_px"):
        load_config(None, ["grid.zzzzz=1"])


def test_a_wrong_value_names_key_and_value() -> None:
    with pytest.raises(InputError, match=r"'grid\.tile_px'.*'many'"):
        load_config(None, ["grid.tile_px=many"])
    with pytest.raises(
        InputError,
        match=r"'grid.overlap_px' .* and 'grid.tile_px' \(the default\): the overlap \(300\) must be smaller",
    ):
        load_config(None, ["grid.overlap_px=300"])


def test_overrides_reach_into_lists_and_come_last() -> None:
    config = load_config(None, ["losses.0.temperature=2", "seeds=4"], {"losses": ["ncmi", "ce"], "seeds": 9})
    assert config.losses[0].temperature == 2
    assert [loss.name for loss in config.losses] == ["ncmi", "ce"]
    assert config.seeds == 4


@pytest.mark.parametrize("override", ["seeds", "=3", "losses.7.name=ce", "seeds.x=1", "grid=[1"])
def test_a_malformed_override_is_one_sentence(override: str) -> None:
    with pytest.raises(InputError, match="--set"):
        load_config("demo", [override])


def test_flags_that_were_not_given_leave_the_file_alone() -> None:
    assert load_config("demo", (), {"grid.min_tissue": None, "seeds": None}).grid.min_tissue == 0.25


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one of bracs"):
        find_config(tmp_path / "nothing.yaml")
    for text in ("- 1\n- 2\n", "a: [", "1: 2\n"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=r"bad\.yaml"):
            load_config(tmp_path / "bad.yaml")


def test_the_printed_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config("camelyon17", ["slides=a", "labels=camelyon17:b.csv"])
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("flags", "overrides", "message"),
    [
        ({"model.name": "abmill"}, [], "'model.name' (--model abmill): there is no model named 'abmill'; did you mean 'abmil'?"),
        ({"losses": ["ce", "nmci"]}, [], "'losses.1' (--losses ce,nmci): there is no loss named 'nmci'; did you mean 'ncmi'?"),
        ({}, ["losses.0.name=nmci"], "'losses.0.name' (--set losses.0.name=nmci): there is no loss named 'nmci'; did you mean 'ncmi'?"),
        ({"losses": ["ce"]}, ["losses.0.power=0.5"], "'losses.0.power' (--set losses.0.power=0.5): the loss 'ce' has no setting 'power'; it has none."),
        ({"losses": ["focal"]}, ["loss.focal_gama=1"], "the loss 'focal' has no setting 'focal_gama'; did you mean 'focal_gamma'?"),
        ({}, ["model.clam.k_sample=4"], "'model.clam' (--set model.clam.k_sample=4): the model 'abmil' has no setting 'clam'; valid are "),
        ({"model.name": "clam_sb"}, ["model.clam.k_samples=4"], "there is no key 'k_samples'; did you mean 'k_sample'?"),
        ({"model.name": "dsmil"}, ["model.hidden=64"], "the model 'dsmil' has no setting 'hidden'; valid are "),
        ({"model.name": "vit"}, ["model.hidden=20"], "'model' (--model vit): the heads of vit (8) must divide hidden (20)."),
        ({}, ["loss.preset=papre"], "did you mean 'paper'?"),
        ({}, ["loss.power=3"], "at most 1"),
    ],
)  # fmt: skip
def test_losses_and_models_are_checked_when_the_configuration_is_read(flags, overrides, message):
    names = {"model.name": "--model", "losses": "--losses"}
    with pytest.raises(InputError) as error:
        read_config(JobConfig, flags=flags, overrides=overrides, flag_names=names, one_of={"loss": "losses"})
    assert message in str(error.value)
    assert "more fault" not in str(error.value)


def test_a_setting_reaches_the_loss_and_the_model_it_belongs_to():
    config = read_config(
        JobConfig, flags={"model.name": "clam_mb"}, overrides=["loss.power=0.5", "model.clam.k_sample=4"],
        one_of={"loss": "losses"},
    )  # fmt: skip
    assert config.losses == (loss_config("ncmi", power=0.5),)
    assert config.model == model_config("clam_mb", clam={"k_sample": 4})


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("extraction: {ray_address: 'x:1'}", [], "'extraction.ray_address' (job.yaml, line 1: x:1) and 'extraction.engine' (the default)"),
        ("extraction: {engine: local}", ["extraction.ray_address=x:1"], "'extraction.ray_address' (--set extraction.ray_address=x:1) and 'extraction.engine' (job.yaml, line 1: local)"),
        ("encoder: uni_v1", ["encoder.precision=fp16", "encoder.device=cpu"], "'encoder.precision' (--set encoder.precision=fp16) and 'encoder.device' (--set encoder.device=cpu): half precision"),
        ("encoder: descriptor", ["encoder.backend=onnx"], "'encoder.backend' (--set encoder.backend=onnx) and 'encoder.name' (job.yaml, line 1: descriptor)"),
        ("inventory: a.csv\ndefault_mpp: 0.5", [], "'default_mpp' (job.yaml, line 2: 0.5) and 'inventory' (job.yaml, line 1: a.csv)"),
        ("inventory: a.csv\nmpp_table: b.csv", [], "'mpp_table' (job.yaml, line 2: b.csv) and 'inventory'"),
        ("stain: {reference: a.png}", [], "'stain.reference' (job.yaml, line 1: a.png) and 'stain.method' (the default)"),
        ("tissue: {method: otsu, threshold: 0.2}", [], "'tissue.threshold' (job.yaml, line 1: 0.2) and 'tissue.method' (job.yaml, line 1: otsu): only the method 'threshold' has it"),
        ("tissue: {method: threshold, min_density: 0.2}", [], "only the method 'hed' has it"),
        ("grid: {mpp: 1, magnification: 20}", [], "'grid.mpp' (job.yaml, line 1: 1) and 'grid.magnification' (job.yaml, line 1: 20): both give"),
        ("split: {test: 0.3}", [], "'split.test' (job.yaml, line 1: 0.3) and 'split.folds' (the default): only a hold-out"),
        ("official_split: true", ["splits=a.json"], "'splits' (--set splits=a.json) and 'official_split' (job.yaml, line 1: true)"),
        ("bag: patient\nsplit: {group: slide_id}", [], "'bag' (job.yaml, line 1: patient) and 'split.group' (job.yaml, line 2: slide_id)"),
        ("losses: [ce, ncmi, ce]", [], "'losses.2' (job.yaml, line 1: ce) and 'losses.0' (job.yaml, line 1: ce): they are the same"),
        ("loss: ce\nlosses: [ncmi]", [], "'loss' (job.yaml, line 1) and 'losses' (job.yaml, line 2) say the same"),
        ("training: {precision: fp16, device: cpu}", [], "'training.precision' (job.yaml, line 1: fp16) and 'training.device'"),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other_are_one_sentence(
    tmp_path: Path, text: str, overrides: list[str], message: str
):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(file, overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: uni_v9", "'encoder' (job.yaml, line 1): there is no encoder 'uni_v9'; did you mean uni_v2"),
        ("artifacts: dropp", "'artifacts' (job.yaml, line 1) is wrong: it is one of keep, drop (did you mean 'drop'?), got 'dropp'"),
        ("stain: mackenko", "(did you mean 'macenko'?)"),
        ("tissue: otso", "there is no tissue method 'otso'; did you mean 'otsu'?"),
        ("grid: 0.5", "'grid' (job.yaml, line 1) is wrong: it takes keys of its own, got 0.5"),
        ("encoder: [descriptor]", "'encoder' (job.yaml, line 1) is wrong: it takes keys of its own"),
    ],
)  # fmt: skip
def test_a_bare_value_stands_for_the_key_that_chooses(tmp_path: Path, text: str, message: str):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(file)
    assert message in str(error.value)
    file.write_text("encoder: uni_v1\nartifacts: drop\nstain: macenko\ntissue: otsu\n")
    config = load_config(file, ["artifacts.pen=0.2", "encoder.batch_size=4"])
    assert (config.encoder.name, config.encoder.batch_size) == ("uni_v1", 4)
    assert (config.artifacts.rule, config.artifacts.pen) == ("drop", 0.2)
    assert (config.stain.method, config.tissue.method) == ("macenko", "otsu")


PATHS = ("slides", "out", "mpp_table", "weights_dir", "annotations", "encoder.weights", "stain.reference", "only", "inventory", "features", "splits")  # fmt: skip


@pytest.mark.parametrize("key", [*PATHS, "labels"])
def test_a_text_that_no_file_can_be_named_with_is_refused(key: str):
    for text, words in (("a\\0b", "a zero byte"), ("\\ud800", "half a character")):
        with pytest.raises(InputError, match=rf"'{key}' \(--set .*\) is wrong: {words} stands in it"):
            load_config(None, ["encoder=uni_v1", f'{key}="{text}"'])
    if key in PATHS:
        with pytest.raises(InputError, match=rf"'{key}' \(--set .*\) is wrong: it needs a name"):
            load_config(None, ["encoder=uni_v1", f"{key}=''"])


OVERRIDES = (
    "model=clam_sb",
    "model.clam.k_sample=4",
    "losses=[ce,{name: ncmi, power: 0.5}]",
    "encoder.batch_size=4",
    "slides=a",
)


@pytest.mark.parametrize("name", [None, "camelyon17", "demo", "bracs"])
@pytest.mark.parametrize("overrides", [(), OVERRIDES])
def test_what_is_shown_and_what_init_writes_read_back_the_same(
    tmp_path: Path, name: str | None, overrides: tuple[str, ...]
):
    config = load_config(name, overrides)
    path = tmp_path / "again.yaml"
    for text in (to_yaml(config, changed_only=True), commented_yaml(config)):
        path.write_text(text)
        assert load_config(path) == config


def test_defaults_are_hidden_and_each_key_is_explained():
    assert to_yaml(load_config(None), changed_only=True) == "# Everything is at its default.\n"
    shown = to_yaml(load_config("demo", OVERRIDES), changed_only=True)
    assert "min_tissue" not in shown
    assert "losses:\n- ce\n- name: ncmi\n  power: 0.5\n" in shown
    lines = commented_yaml(load_config("demo")).splitlines()
    assert "#  mpp: auto" in lines
    assert "seeds: 2" in lines
    assert "#bag: slide" in lines
    for key in field_help(JobConfig):
        assert any(line.lstrip("#").startswith(f"{key}:") for line in lines), key
