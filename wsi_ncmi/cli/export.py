"""``wsi-ncmi export``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.prediction.config.ExportConfig",
    {
        "run": Flag(argument=True, there=True),
        "out": Flag(required=True),
        "features": Flag(there=True, help="Features of the training (those beside the run)."),
        "reference": Flag(
            name="--without-reference",
            help="Leave out the statistics that out-of-distribution slides are flagged by.",
            sets=False,
        ),
        "overwrite": Flag(),
        "coverage": Flag(panel="Decision", metavar="SHARE"),
        "abstain_below": Flag(panel="Decision", metavar="P"),
        "name": Flag(panel="Model card", help="Name of the model (that of the run's folder)."),
        "version": Flag(panel="Model card", metavar="TEXT", help="Version of the model, such as 2.1."),
        "intended_use": Flag(panel="Model card", help="What the model is for."),
        "limits": Flag(panel="Model card", help="What the model is not for."),
        "torchscript": Flag(panel="Other forms"),
        "onnx": Flag(panel="Other forms"),
    },
)


def command(given: Given) -> None:
    """Export a run as a bundle: models, calibration, training statistics and model card in one place.

    Example: wsi-ncmi export run/ncmi --out model.zip
    """
    config = given.read()
    from wsi_ncmi.workflows.export import export

    given.finish(export(config, given.progress))
