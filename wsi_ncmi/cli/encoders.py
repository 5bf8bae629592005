"""``wsi-ncmi encoders list|show|fetch|import|verify|reference``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_ncmi.cli.common import existing_path, named_path, say, say_json
from wsi_ncmi.cli.flags import PLAIN, Given
from wsi_ncmi.core.errors import InputError, counted

if TYPE_CHECKING:
    from wsi_ncmi.encoders import Encoder
    from wsi_ncmi.encoders.weights_import import Imported

app = typer.Typer(help="Published tile encoders and the folder of their weights.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        parser=lambda text: named_path(str(text), "--weights-dir"),
        metavar="DIR",
        help="Weights folder; by default WSI_NCMI_WEIGHTS.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace weights that are there.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        parser=lambda text: named_path(str(text), "--weights"),
        metavar="PATH",
        help="File or folder of the encoder's weights; by default the weights folder.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the encoder computes.")]
Precision = Annotated[
    str, typer.Option("--precision", metavar="auto|fp32|bf16|fp16", help="Arithmetic of the encoder.")
]


@app.command("list")
@PLAIN.command
def list_(given: Given, folder: Folder = None) -> None:
    """List the presets: weights here or missing, width, licence.

    Example: wsi-ncmi encoders list
    """
    from wsi_ncmi.encoders.weights_folder import find_weights_folder, list_presets

    rows = list_presets(find_weights_folder(folder))
    if given.as_json:
        say_json(rows)
        return
    for row in rows:
        notes = [row["licence"], *(["gated"] if row["gated"] else [])]
        if row["unverified"]:
            notes.append(f"{row['unverified']} facts unverified")
        say(f"{row['key']:<17}{row['state']:<10}{row['width']:>5}  {'; '.join(notes)}")


@app.command("show")
@PLAIN.command
def show(
    given: Given,
    key: Annotated[str, typer.Argument(metavar="NAME", help="Key of a preset, or lazyslide:KEY.")],
    folder: Folder = None,
) -> None:
    """Show all facts of an encoder, what they rest on, and how to get its weights.

    Example: wsi-ncmi encoders show uni_v1
    """
    from wsi_ncmi.encoders.weights_folder import describe_preset, find_weights_folder

    zoo = key.partition(":")[2] if key.startswith("lazyslide:") else ""
    weights = find_weights_folder(folder)
    if zoo:
        from wsi_ncmi.encoders.zoo_fetch import describe_zoo  # it loads torch

        facts = describe_zoo(zoo, weights)
    else:
        facts = describe_preset(key, weights)
    if given.as_json:
        say_json(facts)
        return
    for line in (f"{name}: {value}" for name, value in facts.items()) if zoo else _lines(facts):
        say(line)


@app.command("fetch")
@PLAIN.command
def fetch(
    given: Given,
    key: Annotated[str, typer.Argument(metavar="NAME", help="Key of a preset, or lazyslide:KEY.")],
    folder: Folder = None,
    revision: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Branch, tag or commit on the hub.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="The code of a lazyslide:KEY's repository at --revision may be run."
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Download an encoder's weights from the Hugging Face hub into the weights folder.

    Example: wsi-ncmi encoders fetch phikon_v2
    """
    from wsi_ncmi.encoders.presets import find_preset
    from wsi_ncmi.encoders.zoo import find_zoo_model

    family, _, model = key.partition(":")
    if family == "lazyslide":
        find_zoo_model(model)
        target = _needed(folder)
        from wsi_ncmi.encoders.zoo_fetch import fetch_snapshot

        made = fetch_snapshot(
            model, target, revision=revision, trust_remote_code=trust_remote_code, overwrite=overwrite
        )
    elif trust_remote_code:
        raise InputError(f"--trust-remote-code is for lazyslide:KEY; {key} runs no code, leave it out.")
    else:
        find_preset(key)
        target = _needed(folder)
        from wsi_ncmi.encoders.weights_import import fetch_weights

        made = fetch_weights(key, target, revision=revision, overwrite=overwrite)
    if made is not None:
        _tell(made, given)
    elif given.as_json:
        say_json({"present": True})
    else:
        say(f"The weights of {key} are here and whole.")


@app.command("import")
@PLAIN.command
def import_(
    given: Given,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Weights: safetensors, or a torch file of tensors only.")
    ],
    encoder: Annotated[
        str, typer.Option("--as", metavar="NAME", help="A preset, timm:NAME or torchvision:NAME.")
    ],
    folder: Folder = None,
    overwrite: Overwrite = False,
) -> None:
    """Check a weights file against an encoder and put it into the weights folder as safetensors.

    Example: wsi-ncmi encoders import pytorch_model.bin --as uni_v1
    """
    from wsi_ncmi.encoders.presets import find_preset

    target, source = _needed(folder), existing_path(file, "FILE")
    if ":" not in encoder:
        find_preset(encoder)
    from wsi_ncmi.encoders.weights_import import import_weights

    _tell(import_weights(source, encoder, target, overwrite=overwrite), given)


@app.command("verify")
@PLAIN.command
def verify(
    given: Given,
    folder: Folder = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="FILE", help="Compare an encoder with published vectors; prints a report."
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="The encoder; the reference's by default.")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Prove every file of the weights folder by its SHA-256, or an encoder by reference vectors.

    Example: wsi-ncmi encoders verify --reference gigapath
    """
    if reference is not None:
        from wsi_ncmi.encoders.config import split_name
        from wsi_ncmi.encoders.reference import compare_with, find_reference, read_reference

        known = read_reference(find_reference(named_path(reference, "--reference")))
        name = encoder or known.about.encoder
        if encoder is None and split_name(name)[0] in ("file", "plugin", "torchscript", "onnx"):
            # A file from elsewhere must not choose a program to run.
            raise InputError(f"The reference is of {name}; name your file of it with --encoder.")
        made = compare_with(_loaded(name, weights, folder, device, precision), known)
        if given.as_json:
            say_json({
                "equal": made.equal, "cosine": made.cosine.tolist(), "difference": made.difference.tolist(),
                "reference": asdict(made.reference), "here": asdict(made.here),
            })  # fmt: skip
        else:
            for line in made.markdown().splitlines():
                say(line)
        raise typer.Exit(0 if made.equal else 1)
    if encoder is not None or weights is not None:
        raise InputError(
            "--encoder and --weights go with --reference; without it the weights folder is proven."
        )
    from wsi_ncmi.encoders.weights_folder import verify_weights_folder

    rows = [
        {"file": entry.file, "encoder": entry.encoder, "ok": not problem, "problem": problem}
        for entry, problem in verify_weights_folder(_needed(folder))
    ]
    bad = [row for row in rows if not row["ok"]]
    if given.as_json:
        say_json({"files": rows, "bad": len(bad)})
    else:
        for row in rows:
            if row["problem"]:
                say(f"bad: {row['file']} ({row['encoder']}): {row['problem']}")
            elif not given.quiet:
                say(f"ok: {row['file']} ({row['encoder']})")
        say(f"{counted(len(rows) - len(bad), 'file')} whole, {len(bad)} bad.")
    raise typer.Exit(1 if bad else 0)


@app.command("reference")
@PLAIN.command
def reference_(
    given: Given,
    encoder: Annotated[str, typer.Argument(metavar="NAME", help="The encoder, as --encoder takes it.")],
    write: Annotated[str, typer.Option("--write", metavar="FILE", help="The file to make (.npz).")],
    by: Annotated[str, typer.Option("--by", metavar="TEXT", help="Who makes it; stored in the file.")] = "",
    weights: Weights = None,
    folder: Folder = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Make a file of reference vectors: what an encoder gives for the probe tiles of this package.

    Example: wsi-ncmi encoders reference uni_v1 --write uni_v1.npz --by "A Lab"
    """
    path = named_path(write, "--write")
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise InputError(f"--write {path} must be a file .npz in a folder that exists.")
    from wsi_ncmi.encoders.reference import encode_probe, write_reference

    made = encode_probe(_loaded(encoder, weights, folder, device, precision), by=by)
    path = write_reference(made, path)
    if given.as_json:
        say_json({"path": str(path), "about": asdict(made.about)})
    else:
        say(f"reference: {path}")


def _loaded(name: str, weights: Path | None, folder: Path | None, device: str, precision: str) -> Encoder:
    from wsi_ncmi.encoders import load_encoder

    settings = {"device": device, "precision": precision, **({"weights": weights} if weights else {})}
    return load_encoder(name, weights_dir=folder, **settings)


def _needed(given: Path | None) -> Path:
    from wsi_ncmi.encoders.weights_folder import WEIGHTS_VARIABLE, find_weights_folder

    folder = find_weights_folder(given)
    if folder is None:
        raise InputError(f"No weights folder is named; set {WEIGHTS_VARIABLE} or give --weights-dir.")
    return folder


def _tell(made: Imported, given: Given) -> None:
    if given.as_json:
        say_json({"path": str(made.path), "entry": asdict(made.entry), "notes": list(made.notes)})
        return
    if not given.quiet:
        for note in made.notes:
            say(note)
    say(f"weights: {made.path}")


def _lines(facts: dict[str, Any]) -> list[str]:
    recipe, architecture = facts["recipe"], facts["architecture"]
    crop = f", crop {recipe['crop_px']}" if recipe["crop_px"] != recipe["resize_px"] else ""
    hub = facts["hub"]["repository"] if facts["hub"] else "none"
    weights = facts["weights"]
    here = f"{weights['file']} (from {weights['source']}, {weights['date']})" if weights else "not here"
    published = f", published: {facts['published']} ({facts['published_by']})" if facts["published"] else ""
    rows = {
        "encoder": f"{facts['key']} – {facts['title']}",
        "weights": here,
        "hub": hub,
        "access": facts["access"],
        "licence": facts["licence"],
        "commercial use": "permitted by the licence" if facts["commercial"] else "NOT permitted as it stands",
        "gated": "yes" if facts["gated"] else "no",
        "network": f"{architecture['kind']} {architecture['name']} {architecture['arguments']}"
        + (" SwiGLU" if architecture["swiglu"] else ""),
        "preprocessing": f"resize {recipe['resize_px']} {recipe['interpolation']}{crop}; "
        f"mean {recipe['mean']}; std {recipe['std']}",
        "pooling": facts["pooling"],
        "width": facts["width"],
        "parameters": f"{facts['parameters']:,}{published}",
        "native": f"{facts['tile_px']} px at {' / '.join(f'{mpp:g}' for mpp in facts['mpp'])} µm per pixel"
        + (" (the card takes no other)" if facts["fixed_grid"] else ""),
        "citation": facts["citation"],
    }
    return [
        *(f"{name}: {value}" for name, value in rows.items()),
        *(f"verified: {each}" for each in facts["verified"]),
        *(f"UNVERIFIED: {each}" for each in facts["unverified"]),
    ]
