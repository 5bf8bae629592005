"""What a newcomer types in a notebook; ``python snippets.py FOLDER`` runs all, in a fresh process too.

Every snippet runs by itself in a folder that holds ``slide.svs``, ``slides/`` and ``labels.csv``, and, from
:data:`JOBS` on, what these jobs wrote. Nothing but the installed package is needed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np

PATIENTS = 12

JOBS = {
    "extract a folder": """
        import wsi_ncmi
        result = wsi_ncmi.extract("slides", "out", encoder="descriptor", mpp=0.5, tile_px=64, workers=1)
        print(result)
        assert not result.failures and result.files["ledger"].is_file()
    """,
    "train": """
        import wsi_ncmi
        result = wsi_ncmi.train(features="out", labels="labels.csv", out="run", loss="ncmi", folds=2, epochs=2,
                                resamples=100, figures="none", workers=1, device="cpu")
        assert 0 <= result.metrics["macro_f1"].value <= 1
        assert len(result.predictions) == 12
    """,
    "export": """
        import wsi_ncmi
        assert wsi_ncmi.export("run", "model.zip").files["bundle"].is_file()
    """,
}
"""The first snippets, whose files the others read."""

SNIPPETS = {
    "the version": "import wsi_ncmi; assert wsi_ncmi.__version__",
    "an encoder by name": """
        import numpy as np
        from wsi_ncmi import load_encoder
        encoder = load_encoder("descriptor")
        assert encoder(np.zeros((2, 224, 224, 3), np.uint8)).shape == (2, 229)
    """,
    "an encoder on images": """
        from PIL import Image
        from wsi_ncmi import load_encoder
        tile = Image.new("RGB", (64, 64), "white")
        assert load_encoder("descriptor")([tile, tile]).shape == load_encoder("descriptor")([tile] * 2).shape
    """,
    "open a slide": """
        from wsi_ncmi import open_slide
        with open_slide("slide.svs") as slide:
            print(slide, slide.mpp, slide.dimensions, slide.level_count)
            assert len(slide.level_dimensions) == len(slide.level_downsamples) == slide.level_count
    """,
    "read a region as with OpenSlide": """
        import numpy as np
        from wsi_ncmi import open_slide
        region = open_slide("slide.svs").read_region((0, 0), 0, (256, 128))
        assert region.mode == "RGBA" and np.asarray(region).shape == (128, 256, 4)
    """,
    "a thumbnail": """
        from wsi_ncmi import open_slide
        assert max(open_slide("slide.svs").get_thumbnail((100, 100)).size) == 100
    """,
    "embed a slide": """
        from wsi_ncmi import embed_slide
        features, coords = embed_slide("slide.svs", "descriptor", mpp=0.5, tile_px=64)
        assert len(features) == len(coords) > 9 and features.shape[1] == 229
    """,
    "a model by name": """
        import torch
        from wsi_ncmi import build_model
        model = build_model("abmil", 1024, 2)
        assert model(torch.randn(300, 1024)).shape == (1, 2)
    """,
    "a model by class": """
        import torch
        from wsi_ncmi.mil import GatedABMIL
        assert GatedABMIL(1024, 2)(torch.randn(300, 1024)).shape == (1, 2)
    """,
    "padded bags": """
        import torch
        from wsi_ncmi import build_model
        model = build_model("transmil", in_features=64, num_classes=3, hidden=32).eval()
        x = torch.randn(2, 10, 64)
        a = model(x, lengths=torch.tensor([10, 4]))
        b = model(x, mask=torch.arange(10) < torch.tensor([[10], [4]]))
        assert torch.equal(a, b)
    """,
    "a list of bags, with attention": """
        import torch
        from wsi_ncmi import build_model
        logits, attention = build_model("clam_sb", 64, 2)([torch.randn(5, 64), torch.randn(9, 64)],
                                                          return_attention=True)
        assert logits.shape == (2, 2) and [len(a) for a in attention] == [5, 9]
    """,
    "a loss by name": """
        import torch
        from wsi_ncmi import build_loss
        loss = build_loss("focal", 3)
        assert loss(torch.randn(4, 3), torch.tensor([0, 1, 2, 1])).ndim == 0
    """,
    "NCMI in place of CrossEntropyLoss": """
        import torch
        from wsi_ncmi import NCMILoss
        criterion = NCMILoss(3)
        logits = torch.randn(4, 3, requires_grad=True)
        criterion(logits, torch.tensor([0, 1, 2, 1])).backward()
        assert criterion.predict_proba(logits).argmax(1).equal(logits.argmax(1))
    """,
    "NCMI on embeddings": """
        import torch
        from wsi_ncmi import NCMILoss, build_model
        model = build_model("abmil", 64)
        criterion = NCMILoss(num_classes=2, in_features=model.embedding_width)
        optimiser = torch.optim.AdamW([*model.parameters(), *criterion.parameters()])
        criterion(model(torch.randn(3, 50, 64)), torch.tensor([0, 1, 1])).backward()
        optimiser.step()
    """,
    "class weights and reduction": """
        import torch
        from wsi_ncmi import NCMILoss
        loss = NCMILoss(2, reduction="none", weight=torch.tensor([1.0, 3.0]))
        assert loss(torch.randn(4, 2), torch.tensor([0, 1, 1, 0])).shape == (4,)
    """,
    "a training loop": """
        import torch
        from torch.utils.data import DataLoader
        from wsi_ncmi import FeatureDataset, build_loss, build_model, collate
        dataset = FeatureDataset("out", "labels.csv")
        model = build_model("abmil", dataset.in_features, len(dataset.classes))
        criterion = build_loss("ncmi", len(dataset.classes))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for features, lengths, labels in DataLoader(dataset, batch_size=4, shuffle=True, collate_fn=collate):
            optimiser.zero_grad()
            criterion(model(features, lengths=lengths), labels).backward()
            optimiser.step()
    """,
    "one bag from the dataset": """
        from wsi_ncmi import FeatureDataset, build_model
        features, label = FeatureDataset("out", "labels.csv")[0]
        assert build_model("mean", features.shape[1], 2)(features).shape == (1, 2) and label in (0, 1)
    """,
    "macro-F1": """
        from wsi_ncmi.metrics import macro_f1
        assert macro_f1([0, 1, 1], [0, 1, 1]) == 1
    """,
    "metrics of names and probabilities": """
        import numpy as np
        from wsi_ncmi import metrics
        y, p = ["LUAD", "LUSC", "LUSC"], np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        assert metrics.auroc(y, p) == 1 and metrics.balanced_accuracy(y, ["LUAD", "LUSC", "LUAD"]) == 0.75
    """,
    "an interval over patients": """
        from wsi_ncmi import metrics
        found = metrics.bootstrap(metrics.macro_f1, [0, 1, 1, 0], [0, 1, 0, 0], groups=["a", "b", "b", "c"],
                                  resamples=200)
        assert found.ci_low <= found.value <= found.ci_high
    """,
    "evaluate predictions without patients": """
        import pandas as pd
        from wsi_ncmi.metrics import evaluate_predictions
        df = pd.DataFrame({"slide_id": ["a", "b", "c", "d"], "label": ["x", "y", "x", "y"],
                           "p_x": [0.9, 0.2, 0.6, 0.7], "p_y": [0.1, 0.8, 0.4, 0.3]})
        assert evaluate_predictions(df, ["x", "y"], resamples=100).metrics["accuracy"].value == 0.75
    """,
    "evaluate": """
        import wsi_ncmi
        result = wsi_ncmi.evaluate("run/predictions.csv", out="evaluation", resamples=100, figures="none")
        assert result.metrics["macro_f1"].value == wsi_ncmi.evaluate(
            predictions="run", out="evaluation", resamples=100, figures="none").metrics["macro_f1"].value
    """,
    "predict a folder": """
        import wsi_ncmi
        result = wsi_ncmi.predict("slides", "model.zip", "predicted", cache="out", heatmaps=False, workers=1)
        assert set(result.predictions["prediction"]) <= {"a", "b"}
    """,
    "predict one slide": """
        from wsi_ncmi import load_bundle
        found = load_bundle("model.zip").predict("slide.svs")
        assert found.prediction in ("a", "b") and abs(found.probabilities.sum() - 1) < 1e-9
    """,
    "predict features": """
        from wsi_ncmi import embed_slide, load_bundle
        bundle = load_bundle("model.zip")
        features, coords = embed_slide("slide.svs", "descriptor", mpp=0.5, tile_px=64)
        assert (bundle.predict(features).probabilities == bundle.predict("slide.svs").probabilities).all()
    """,
    "compare losses": """
        import wsi_ncmi
        result = wsi_ncmi.compare("out", "compared", labels="labels.csv", losses=["ncmi", "ce"], folds=2, epochs=1,
                                  resamples=100, figures="none", workers=1, device="cpu")
        assert set(result.numbers["losses"]) == {"ncmi", "ce"}
    """,
    "a slip in a name": """
        import wsi_ncmi
        try:
            wsi_ncmi.extract("slides", "out", encodre="descriptor")
        except wsi_ncmi.InputError as error:
            assert "did you mean 'encoder'" in str(error)
        else:
            raise AssertionError("nothing was said")
    """,
    "what things are": """
        import wsi_ncmi
        for thing in (wsi_ncmi.open_slide("slide.svs"), wsi_ncmi.load_bundle("model.zip"),
                      wsi_ncmi.load_encoder("descriptor"), wsi_ncmi.FeatureDataset("out", "labels.csv")):
            assert " object at 0x" not in repr(thing)
        assert "data:image/jpeg" in wsi_ncmi.open_slide("slide.svs")._repr_html_()
    """,
}


def make_inputs(folder: Path) -> None:
    """Slides of two classes, and their labels."""
    from wsi_ncmi.synthesis import write_pyramid

    (folder / "slides").mkdir(parents=True, exist_ok=True)
    rows = ["slide_id,case_id,label"]
    for number in range(PATIENTS):
        rng = np.random.default_rng(number)
        pixels = np.full((512, 640, 3), 245, np.uint8)
        y, x = np.mgrid[:512, :640]
        inside = ((x - 320) / 256) ** 2 + ((y - 256) / 205) ** 2 < 1
        noise = np.kron(rng.integers(0, 90, (128, 160)), np.ones((4, 4), int))[..., None]
        colour = np.array((130, 60, 140) if number % 2 else (150, 30, 110))
        pixels[inside] = (colour + noise)[inside]
        write_pyramid(folder / "slides" / f"s{number:02d}.svs", pixels, 0.5)
        rows.append(f"s{number:02d},p{number:02d},{'ab'[number % 2]}")
    (folder / "slide.svs").write_bytes((folder / "slides" / "s00.svs").read_bytes())
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def run(code: str) -> None:
    """Runs a snippet in the working directory."""
    import textwrap

    exec(compile(textwrap.dedent(code), "<snippet>", "exec"), {"__name__": "snippet"})


def main(folder: Path) -> int:
    """Runs all snippets, with a line for each; the number of those that raised."""
    make_inputs(folder)
    failed = 0
    with contextlib.chdir(folder):
        for name, code in {**JOBS, **SNIPPETS}.items():
            try:
                run(code)
            except Exception as error:
                failed += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}")
            else:
                print(f"ok {name}")
    return failed


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    sys.exit(main(Path(sys.argv[1])))
