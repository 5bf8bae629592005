"""TorchScript and ONNX: compared with the model in another program's hands, or refused."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.prediction.models import write_model
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.mil import build_aggregator, list_models, model_config
from wsi_ncmi.prediction.portable import PORTABLE_TOLERANCE, export_portable
from wsi_ncmi.training import TrainedModel, load_trained

REFUSED = {"transmil", "dtfd", "vit"}


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    write_model(tmp_path / "m", 0, classes=("a", "b", "c"))
    return load_trained(tmp_path / "m")


def bag(tiles: int) -> np.ndarray:
    return np.random.default_rng(tiles).normal(size=(tiles, 6)).astype(np.float32) * 3


@pytest.mark.parametrize("tiles", [1, 3, 1234])
def test_torchscript_answers_as_the_model(model: TrainedModel, tiles: int) -> None:
    content, difference = export_portable(model, "torchscript")
    assert difference <= PORTABLE_TOLERANCE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather have torch.export
        loaded = torch.jit.load(io.BytesIO(content))
    probabilities, attention = loaded(torch.from_numpy(bag(tiles)))
    ours = model.predict(bag(tiles))
    np.testing.assert_allclose(probabilities.numpy(), ours[0], atol=1e-5)
    np.testing.assert_allclose(attention.numpy(), ours[1], atol=1e-5)


@pytest.mark.parametrize("tiles", [1, 3, 1234])
def test_onnx_answers_as_the_model(model: TrainedModel, tiles: int) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    content, _ = export_portable(model, "onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    probabilities, attention = session.run(None, {"features": bag(tiles)})
    ours = model.predict(bag(tiles))
    np.testing.assert_allclose(probabilities, ours[0], atol=1e-5)
    np.testing.assert_allclose(attention, ours[1], atol=1e-5)


@pytest.mark.parametrize("name", [info.name for info in list_models()])
def test_every_aggregator_is_exported_or_refused_in_a_sentence(name: str) -> None:
    torch.manual_seed(0)
    aggregator = build_aggregator(model_config(name=name), 6, 3)
    criterion = build_loss(loss_config(name="ncmi"), 3, aggregator.embedding_width, (5, 5, 5))
    model = TrainedModel(aggregator.eval(), criterion.eval(), ("a", "b", "c"), {"model": {"name": name}})
    if name in REFUSED:
        with pytest.raises(InputError, match=rf"aggregator {name} .*without --torchscript"):
            export_portable(model, "torchscript")
    else:
        assert export_portable(model, "torchscript")[1] <= PORTABLE_TOLERANCE


def test_tracing_changes_nothing_outside_of_it(model: TrainedModel) -> None:
    before = model.predict(bag(7))
    export_portable(model, "torchscript")
    np.testing.assert_array_equal(model.predict(bag(7))[0], before[0])
