"""What can be said of the recipes and the built images without running them."""

from __future__ import annotations

import subprocess

from engine import CPU, GPU, ROOT, USER, Engine, build, demand


def lint(engine: Engine) -> str:
    """Both recipes pass hadolint."""
    files = sorted(str(path) for path in (ROOT / "docker").glob("Dockerfile*"))
    ended = subprocess.run(["hadolint", *files], capture_output=True, text=True, check=False)
    demand(ended.returncode == 0, ended.stdout)
    return f"{len(files)} recipes"


def description(engine: Engine) -> str:
    """User, init, health check and labels are those of the recipe, of every image that was built."""
    said = []
    for image in (CPU, GPU):
        if engine.call("podman", "image", "exists", image, check=False).returncode:
            continue
        about = engine.about(image)
        config = about["Config"]
        demand(config["User"] == f"{USER}:{USER}", config["User"])
        demand(config["Entrypoint"] == ["tini", "--", "wsi-ncmi"], str(config["Entrypoint"]))
        demand("HF_HUB_OFFLINE=1" in config["Env"], str(config["Env"]))
        demand(config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0", str(config["Labels"]))
        check = about.get("Healthcheck") or config.get("Healthcheck")
        demand("wsi_ncmi.core.heartbeat" in str(check), "no health check")
        name = image.rpartition(":")[2]
        said.append(f"{name} {about['Size'] / 1e9:.2f} GB in {len(about['RootFS']['Layers'])} layers")
    return ", ".join(said)


def reproducible(engine: Engine) -> str:
    """The CPU image, built a second time without any cache, has the same layers and the same configuration.

    Its digest may differ: buildah writes the ids of the images between the steps into the history.
    """
    again = "localhost/wsi-ncmi:again"
    seconds = build(engine, "Dockerfile.cpu", again, "--no-cache")
    first, second = engine.about(CPU), engine.about(again)
    layers = list(zip(first["RootFS"]["Layers"], second["RootFS"]["Layers"], strict=True))
    other = [number for number, (one, two) in enumerate(layers) if one != two]
    demand(not other, f"layers {other} of {len(layers)} differ")
    demand(first["Config"] == second["Config"], "the layers are equal, the configuration is not")
    digest = "and the digest" if first["Id"] == second["Id"] else "but the history, and so the digest, is not"
    return f"{len(layers)} layers and the configuration are equal, {digest}; built in {seconds:.0f} s"
