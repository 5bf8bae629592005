"""``wsi-ncmi train``, and the flags that it shares with ``compare``, ``grid`` and ``search``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FEATURES = Flag(
    required=True,
    there=True,
    rest="further_features",
    metavar="PATH",
    help="Folder of feature files, or a packed .npz; given several times, the embeddings are joined.",
)
MODEL = Flag(name="--model", panel="Training", help="Aggregator (abmil = gated attention).")
LOSS = Flag(name="--loss", panel="Training", single=True, help="Loss, such as ncmi or ce.")
SHARED = {
    "labels": Flag(
        there=True, metavar="CSV|ADAPTER:FILE", help="Labels; not needed where FEATURES carries them."
    ),
    "order": Flag(metavar="A,B,…", panel="Expert"),
    "init": Flag(there=True, panel="Training", help="Model whose weights the training starts from."),
    "out": Flag(required=True, folder=True),
    "splits": Flag(there=True, metavar="FILE", help="Splits file; else folds are made."),
    "official_split": Flag(),
    "split.folds": Flag(),
    "split.group": Flag(help="What stays together; slide_id = each slide is a patient."),
    "bag": Flag(help="The tiles of a slide, or of all slides of a patient."),
    "seeds": Flag(panel="Training"),
    "training.epochs": Flag(panel="Training"),
    "overwrite": Flag(),
    "allow_leak": Flag(),
    "workers": Flag(panel="Machine"),
    "training.device": Flag(panel="Machine"),
    "training.threads": Flag(panel="Machine"),
    "training.cache_mib": Flag(panel="Machine"),
    "training.*": Flag(panel="Expert"),
}
FLAGS = ConfigFlags(
    "wsi_ncmi.training.config.TrainConfig",
    {"features": FEATURES, "losses": LOSS, "model.name": MODEL, **SHARED},
    one_of={"loss": "losses"},
)


def command(given: Given) -> None:
    """Train an aggregator on folds and seeds, and report out-of-fold macro-F1.

    Example: wsi-ncmi train --features out/features/descriptor --labels labels.csv --out run --loss ncmi
    """
    config = given.read({"name": run_name(given)})
    from wsi_ncmi.workflows import train

    given.finish(train(config, given.progress))


def run_name(given: Given) -> str:
    """The name of the run folder, which is the report's title."""
    return str(given.values["out"]).rstrip("/").rpartition("/")[2]
