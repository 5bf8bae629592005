"""Jobs called with settings: the names of the YAML keys and flags, one sentence for a slip, results with numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wsi_ncmi
from wsi_ncmi.core.config.keywords import from_keywords, takes_settings
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.training.config import EvaluateConfig, TrainConfig
from wsi_ncmi.workflows import JobResult


def extract_config(**settings) -> ExtractConfig:
    return from_keywords(ExtractConfig, settings, "extract")


def test_settings_have_the_names_of_keys_and_flags():
    found = extract_config(
        slides="in",
        encoder="descriptor",
        mpp=0.5,
        tile_px=64,
        min_tissue=0.5,
        workers=2,
        tissue={"method": "hed"},
    )
    assert found == ExtractConfig(
        slides=Path("in"),
        encoder={"name": "descriptor"},
        grid={"mpp": 0.5, "tile_px": 64, "min_tissue": 0.5},
        extraction={"workers": 2},
        tissue={"method": "hed"},
    )
    train = from_keywords(
        TrainConfig, {"loss": "focal", "epochs": 3, "folds": 2, "split.seed": 4}, "train", loss="losses"
    )
    assert [loss.name for loss in train.losses] == ["focal"]
    assert (train.training.epochs, train.split.folds, train.split.seed) == (3, 2, 4)
    several = from_keywords(TrainConfig, {"losses": ["ncmi", "ce"]}, "train", loss="losses")
    assert list(several.named_losses) == ["ncmi", "ce"]


def test_paths_and_numbers_of_numpy_are_taken():
    found = from_keywords(
        TrainConfig, {"labels": Path("a/labels.csv"), "features": Path("f"), "epochs": np.int64(3)}, "train"
    )
    assert (found.labels, found.features, found.training.epochs) == ("a/labels.csv", Path("f"), 3)
    assert extract_config(mpp=np.float32(0.5), slides=Path("in")).grid.mpp == 0.5


def test_one_loss_and_several_are_not_given_together():
    with pytest.raises(InputError, match="say the same"):
        from_keywords(TrainConfig, {"loss": "ce", "losses": ["ncmi"]}, "train", loss="losses")


def test_a_setting_inside_another_is_added_to_it():
    found = extract_config(encoder="descriptor", batch_size=4, grid={"mpp": 1.0}, tile_px=32)
    assert (found.encoder.name, found.encoder.batch_size) == ("descriptor", 4)
    assert (found.grid.mpp, found.grid.tile_px) == (1.0, 32)


WRONG = {
    "a slip": ({"encodre": "descriptor"}, "extract has no setting 'encodre'; did you mean 'encoder'"),
    "a slip below": ({"tile_pxx": 3}, "did you mean 'tile_px'"),
    "two of a name": ({"method": "hed"}, r"several settings method; write tissue=\{method: …\} or stain="),
    "a value": ({"mpp": "fine"}, r"'grid.mpp' \(mpp fine\)"),
    "a contradiction": ({"encoder": "descriptor", "precision": "fp16"}, "computes in fp32"),
    "an encoder": ({"encoder": "uni_v9"}, "no encoder 'uni_v9'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_setting_is_one_sentence(fault):
    settings, message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        extract_config(**settings)


@takes_settings("wsi_ncmi.training.config:EvaluateConfig", "predictions", "out")
def job(
    config: EvaluateConfig, progress: object = None, *, more: int = 0
) -> tuple[EvaluateConfig, object, int]:
    """A job."""
    return config, progress, more


def test_positions_names_and_configs_are_the_same():
    config = EvaluateConfig(predictions=Path("p"), out=Path("o"))
    assert job("p", "o", more=2) == (config, None, 2)
    assert job(predictions="p", out="o", progress="bar") == (config, "bar", 0)
    assert job(config, "bar", more=1) == (config, "bar", 1)
    assert job(config=config) == (config, None, 0)
    assert job.__doc__ == "A job."


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("p", "o", "x"), {}, "takes 'predictions' and 'out' by position"),
        (("p",), {"predictions": "q"}, "got 'predictions' twice"),
        (("p",), {}, "'out' is missing"),
        ((EvaluateConfig(predictions=Path("p"), out=Path("o")),), {"resamples": 5}, "put it into the config"),
        ((3, "o"), {}, "'predictions'"),
    ],
)
def test_a_job_that_can_t_start(arguments, settings, message):
    with pytest.raises(InputError, match=message):
        job(*arguments, **settings)


@pytest.mark.parametrize("name", ["extract", "train", "predict", "evaluate", "compare", "export"])
def test_every_job_tells_a_slip(name):
    with pytest.raises(InputError, match=f"{name} has no setting 'ouut'; did you mean 'out'"):
        getattr(wsi_ncmi, name)(ouut="x")


def test_the_import_loads_nothing_heavy():
    code = "import sys, wsi_ncmi; print(sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_comparison_needs_two_losses():
    with pytest.raises(InputError, match="at least two losses"):
        wsi_ncmi.compare("features", "out", loss="ncmi")


def test_a_result_says_what_it_has():
    result = JobResult({"ledger": Path("ledger.csv")}, failures=("a: <broken>",), notes=("1 slide done",))
    assert repr(result) == "JobResult\n  1 slide done\n  1 failure: a: <broken>\n  ledger: ledger.csv"
    assert "&lt;broken&gt;" in result._repr_html_()
    for name in ("metrics", "predictions"):
        with pytest.raises(InputError, match=f"This job has no {name}; it wrote ledger"):
            getattr(result, name)
