"""Starting weights: from a run, the tracking store, a weight file or a folder of transformers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from bigopt.pipeline.head import head_of, refuse_other_outputs, same_outputs, with_own_head
from bigopt.pipeline.keys import compare, equal
from bigopt.pipeline.remote import SCHEMES, fetch
from bigopt.pipeline.structure import STRUCTURE, WEIGHTS, Build, apply_structure, read_structure
from bigopt.pipeline.transformers_folder import transformers_state
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network

WRAPPERS = ("module.", "model.", "network.", "_orig_mod.")
"""Prefixes that DDP, Lightning and ``torch.compile`` put before all names."""


def load_into(
    network: Network,
    source: str | Path,
    build: Build | None = None,
    *,
    allow_new_head: bool = False,
    tracking_uri: str | None = None,
) -> str:
    """Loads weights into a network, in place; it is left as it was if they do not fit.

    Weights of a bigopt run bring the run's structure (channels that were removed) and input normalisation with them.
    Others keep the network's normalisation. Nothing that a file holds is run.

    Args:
        network: freshly built.
        source: folder of a bigopt run, ``runs:/…`` or ``models:/…`` in the tracking store, a file of weights, or a
            folder of transformers.
        build: gives the dense network of a specification; used where ``network`` was changed already.
        allow_new_head: keep the network's own last layer where the weights have one for another number of classes.
        tracking_uri: the tracking store; None takes ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the working directory.

    Returns:
        One line on what was loaded.

    Raises:
        RequestError: nothing there, nothing that can be loaded safely, or weights of another architecture.
    """
    shown = str(source)
    if shown.startswith(SCHEMES):
        with TemporaryDirectory(prefix="bigopt-weights-") as folder:
            return _load(network, fetch(shown, Path(folder), tracking_uri), shown, build, allow_new_head)
    if "://" in shown:
        raise RequestError(f"weights {shown}: nothing is loaded from a URL; download it, or use one of {SCHEMES}")
    return _load(network, Path(source).expanduser(), shown, build, allow_new_head)


def _load(network: Network, path: Path, shown: str, build: Build | None, new_head: bool) -> str:
    from bigopt.store import load_weights

    if path.name == WEIGHTS and (path.parent / STRUCTURE).is_file():
        path = path.parent
    if (path / STRUCTURE).is_file():
        return _load_run(network, path, shown, build, new_head)
    if (path / "config.json").is_file():
        return _load_state(network, transformers_state(network.net, path), shown, new_head)
    if (path / WEIGHTS).is_file():
        path = path / WEIGHTS
    if path.is_dir():
        raise RequestError(f"weights {shown}: a folder without {STRUCTURE}, config.json or {WEIGHTS}")
    return _load_state(network, _renamed(load_weights(path), network), shown, new_head)


def _load_run(network: Network, folder: Path, shown: str, build: Build | None, new_head: bool) -> str:
    structure = read_structure(folder)
    if not network.changes:
        dense = copy.deepcopy(network)
    elif build is not None:
        dense = _as_network(build(dict(structure.spec)), shown)
    else:
        raise RequestError(f"weights {shown}: the network was changed already, and nothing can build it anew")
    fresh = apply_structure(dense, structure, f"weights {shown}", allow_new_head=new_head)
    network.net, network.normalize, network.changes = dense.net, dense.normalize, dense.changes
    changed = f", {len(structure.changes)} structural changes repeated" if structure.changes else ""
    return f"weights of the run {shown}: {len(structure.state)} tensors{changed}{_new_head_note(fresh)}"


def _load_state(network: Network, given: Mapping[str, Tensor], shown: str, new_head: bool) -> str:
    own = network.state_dict()
    kept = {name: own[name] for name in own if name.startswith("normalize.") or name.endswith(".num_batches_tracked")}
    state = {**kept, **given}
    head = head_of(network)
    fresh = new_head and head is not None and not same_outputs(head, state)
    if head is not None and fresh:
        state = with_own_head(head, state)
    elif head is not None and not same_outputs(head, state):
        refuse_other_outputs(network, head, state, equal, f"weights {shown}")
    different = compare(own, state)
    if different:
        raise RequestError([f"weights {shown}: of another architecture", *different.lines()])
    network.load_state_dict(state)
    return f"weights {shown}: {len(given)} tensors{_new_head_note(fresh)}"


def _renamed(given: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The tensors under the network's names: of all known prefixes taken away or added, those that agree most."""
    own = set(network.state_dict())
    variants = [dict(given)]
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in given):
            variants.append({name.removeprefix(prefix): tensor for name, tensor in given.items()})
    variants += [{f"net.{name}": tensor for name, tensor in variant.items()} for variant in list(variants)]
    return max(variants, key=lambda variant: len(own & set(variant)))


def _as_network(model: nn.Module, shown: str) -> Network:
    if not isinstance(model, Network):
        raise RequestError(f"weights {shown}: expected a bigopt network, got {type(model).__name__}")
    return model


def _new_head_note(fresh: bool) -> str:
    return "; the last layer is new" if fresh else ""
