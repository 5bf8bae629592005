"""``wsi-ncmi encode-slides``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.workflows.encode_slides.EncodeSlidesConfig",
    {
        "features": Flag(argument=True, there=True),
        "out": Flag(required=True, folder=True),
        "encoder": Flag(panel="Encoder"),
        "weights": Flag(panel="Encoder", there=True),
        "weights_dir": Flag(panel="Encoder"),
        "allow_other_grid": Flag(panel="Encoder"),
        "device": Flag(panel="Machine"),
        "*": Flag(),
    },
)


def command(given: Given) -> None:
    """Encode each slide's tile features into one vector: mean, FEATHER, TITAN, PRISM, GigaPath, CHIEF, ….

    Example: wsi-ncmi encode-slides out/features/uni_v1 --encoder mean --out vectors/
    """
    config = given.read()
    from wsi_ncmi.workflows.encode_slides import encode_slides

    given.finish(encode_slides(config, given.progress))
