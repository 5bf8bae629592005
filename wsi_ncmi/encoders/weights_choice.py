"""The one network that is meant in a weights file, under whatever names training code saved it."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.encoders.encoder_files import some_of
from wsi_ncmi.encoders.presets import Preset
from wsi_ncmi.encoders.tensor_names import to_our_names
from wsi_ncmi.encoders.weights import check_fit, misfits, read_weights

_LOG = logging.getLogger(__name__)

# Dictionaries of a checkpoint in the order of preference, where several hold the network. DINO and DINOv2
# publish their teacher; state dicts of an exponential mean beside the plain one are not taken.
_PREFERRED = ("state_dict", "model_state_dict", "model", "teacher")

# What torch.compile, FSDP and activation checkpointing put into names, anywhere.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

# Names of a module beside the encoder that no feature needs: heads of the training, its losses and measures,
# preparation of pixels, the tower of a text, and copies that are not the published one (DINO's student,
# MoCo's key or momentum encoder, running means of the weights).
_ASIDE = re.compile(
    r"fc|bn|mask_token|masked_embed|center|n_averaged|(.*_)?queue(_ptr)?|(.*_)?heads?\d*|head_dist|decoder(_.*)?"
    r"|(.*_)?(classifier|projector|projection|predictor|prototypes)s?\d*(_momentum|_ema)?"
    r"|(.*_)?(criterion|loss|metric)(e?s)?(_.*)?|class_weights?|(train|val|valid|test)_.+"
    r"|data_preprocessor|normali[sz]e|pixel_(mean|std)"
    # The tower of the text of CLIP and its kin, under its names and those of OpenCLIP.
    r"|(text|language)(_.*)?|transformer|token_embedding|positional_embedding|ln_final|logit_(scale|bias)"
    r"|prompt_learner|temperature"
    r"|(.*_)?(momentum|ema|swa|student)(_.*)?|encoder_k"
)


@dataclass(frozen=True)
class _Candidate:
    place: str  # dictionary of the file, empty for the file itself
    prefix: str
    state: Mapping[str, Tensor]  # by our names
    faults: int  # tensors missing or of another shape
    left: Mapping[str, int]  # named groups that are left out, with their numbers of tensors
    strange: Sequence[str]  # what belongs to no such group

    def __str__(self) -> str:
        return ".".join(part for part in (self.place, self.prefix.rstrip(".")) if part) or "the file itself"


def choose_weights(
    path: Path,
    network: nn.Module,
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    *,
    head: Sequence[str],
    name: str,
) -> tuple[dict[str, Tensor], str]:
    """Finds the tensors of a network in a weights file, and logs where they stood and what was left out.

    Every dictionary of the file and every prefix in it is tried (``model.``, ``module.encoder_q.``,
    ``teacher`` and ``backbone.``, …). One is taken if all tensors of the network are there with their
    shapes, and what is left over is the network's head or a group of a known kind: heads, projectors,
    losses, queues, the tower of a text, DINO's student, MoCo's key or momentum encoder.

    Args:
        path: The weights file.
        network: The network, possibly on the ``meta`` device; it isn't changed.
        rename: Gives tensors of published names our names.
        head: Name prefixes of what was removed from the network.
        name: The encoder's name, for the error.

    Returns:
        Tensors by our name, nothing but the network's, and one sentence on what was taken and left out;
        empty where the file holds the network alone.

    Raises:
        InputError: The file can't be read, no mapping fits, or several do.
    """
    raw = read_weights(path)
    parts = {place: _unwrapped(state) for place, state in raw.items()}
    found = [
        _candidate(place, prefix, state, network, rename, head)
        for place, state in parts.items()
        for prefix in _prefixes(state, len(network.state_dict()))
    ]
    whole = _distinct([each for each in found if not each.faults])
    fitting = _preferred(_distinct([each for each in found if not each.faults and not each.strange]))
    if len(fitting) > 1 or (not fitting and len(whole) > 1):
        names = [str(each) for each in fitting or whole]
        raise InputError(
            f"The weights file {path} holds {name} {len(names)} times ({some_of(names, 6)}); save the state "
            "dict of the one that is meant."
        )
    if not fitting:
        nearest = min(found, key=lambda each: (each.faults, len(each.strange)))
        check_fit(network, nearest.state, head=head, path=path, name=name)  # says what is wrong with it
        raise InputError(
            f"The weights file {path} holds {name} under {nearest}, and beside it "
            f"{counted(len(nearest.strange), 'tensor')} of no known use ({some_of(nearest.strange)}); save "
            "the state dict of the encoder alone."
        )
    (chosen,) = fitting
    if odd := [
        key for key, tensor in network.state_dict().items() if not _is_like(chosen.state.get(key), tensor)
    ]:
        raise InputError(
            f"The weights file {path} holds whole numbers, or none, in place of floating-point numbers "
            f"({some_of(odd)}), as quantised weights do; take the original ones."
        )
    wrappers = {part for key in raw[chosen.place] for part in key.split(".") if part in _WRAPPERS}
    others = {place or "beside it": len(state) for place, state in parts.items() if place != chosen.place}
    note = _note(chosen, sorted(wrappers), {**chosen.left, **others})
    if note:
        _LOG.info("Weights file %s: %s", path.name, note)
    return {key: chosen.state[key] for key in network.state_dict() if key in chosen.state}, note


def _is_like(found: Tensor | None, ours: Tensor) -> bool:
    return found is None or (not found.is_meta and found.is_floating_point() >= ours.is_floating_point())


def choose_preset_weights(path: Path, network: nn.Module, preset: Preset) -> tuple[dict[str, Tensor], str]:
    """:func:`choose_weights` for the network of a preset."""

    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return to_our_names(preset.architecture.names, state, network)

    return choose_weights(path, network, rename, head=preset.architecture.left_over, name=preset.key)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes torch's own wrappers out of the names; a name that is there without stays as it is."""
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        plain[key if name in state or name in plain else name] = value
    return plain


def _prefixes(state: Mapping[str, Tensor], needed: int) -> list[str]:
    """Every beginning of names, up to a dot, that half as many names share as the network has tensors."""
    counts: dict[str, int] = {"": len(state)}
    for key in state:
        for at, letter in enumerate(key):
            if letter == ".":
                counts[key[: at + 1]] = counts.get(key[: at + 1], 0) + 1
    return [prefix for prefix, count in counts.items() if not prefix or 2 * count >= needed]


def _candidate(
    place: str,
    prefix: str,
    part: Mapping[str, Tensor],
    network: nn.Module,
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    head: Sequence[str],
) -> _Candidate:
    state = rename({key.removeprefix(prefix): part[key] for key in part if key.startswith(prefix)})
    missing, extra, shapes = misfits(network, state)
    ours = {key.partition(".")[0] for key in network.state_dict()}
    left: Counter[str] = Counter()
    strange = []
    rest = [(prefix, key) for key in extra]
    rest += [_parted(key, prefix) for key in part if not key.startswith(prefix)]
    for at, key in rest:
        group = key.partition(".")[0]
        # A group that holds tensors of the network can't be left out in part.
        aside = _ASIDE.fullmatch(group) and not (at == prefix and group in ours)
        if aside or key.startswith(tuple(head)):
            left[at + group] += 1
        else:
            strange.append(at + key)
    return _Candidate(place, prefix, state, len(missing) + len(shapes), left, strange)


def _parted(key: str, prefix: str) -> tuple[str, str]:
    """What a name shares with a prefix, up to a dot, and the rest."""
    at = 0
    while key.startswith(prefix[: (end := prefix.index(".", at) + 1)]):
        at = end
    return key[:at], key[at:]


def _distinct(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """One of those that take the same tensors, as where our renaming strips ``backbone.``, too."""
    kept: list[_Candidate] = []
    for each in candidates:
        if not any(each.state.get(key) is value for other in kept for key, value in other.state.items()):
            kept.append(each)
    return kept


def _preferred(candidates: list[_Candidate]) -> list[_Candidate]:
    """Those of the dictionary that is taken by convention, where several hold the network."""
    places = [each.place.split(".") for each in candidates]
    main = [
        each
        for each, parts in zip(candidates, places, strict=True)
        if not any(_ASIDE.fullmatch(part) for part in parts)
    ]
    candidates = main or candidates
    for name in _PREFERRED:
        if named := [each for each in candidates if name in each.place.split(".")]:
            return named
    return candidates


def _note(chosen: _Candidate, wrappers: Sequence[str], left: Mapping[str, int]) -> str:
    prefix = "".join(f"{part}." for part in wrappers) + chosen.prefix
    taken = [f"from its dictionary {chosen.place}"] if chosen.place else []
    taken += [f"without the prefix {prefix}"] if prefix else []
    out = [f"{group} ({counted(count, 'tensor')})" for group, count in left.items()]
    said = [f"the network is taken {', '.join(taken)}"] if taken else []
    said += [f"left out: {', '.join(out)}"] if out else []
    return "; ".join(said)[:1].upper() + "; ".join(said)[1:] + "." if said else ""
