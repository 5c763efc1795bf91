"""Models whose structure was changed, on disk: the recipe of the dense model, what was done to it, its weights.

``structure.json`` holds ``spec`` (builds the dense model), ``changes`` (what was done, in order, each
``{"op": …, …}``) and ``sizes`` (the numbers that the modules' forward passes read: channels, groups, heads). A model
is rebuilt from these without running anything that the files contain, and without tracing:

- ``prune`` only makes tensors smaller, so that its result is fully given by the shapes in ``model.safetensors`` and by
  ``sizes``. Repeating removals through torch-pruning's own history would need an example input, forgets head counts,
  has no stable names for parameters outside of modules, and notes ``group.prune(idxs)`` twice.
- any other ``op`` names its ``plugin``, whose ``replay(model, entry)`` makes the change again; ``kind`` says where the
  plugin is registered, unless that is ``compression``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bigopt.pipeline.head import head_of, refuse_other_outputs, same_outputs, with_own_head, with_own_outputs
from bigopt.pipeline.keys import Sizes, compare, equal, smaller
from bigopt.pipeline.sizes import module_sizes, resize
from bigopt.vocabulary.errors import RequestError

SCHEMA = 1
STRUCTURE = "structure.json"
WEIGHTS = "model.safetensors"

Build = Callable[[dict[str, Any]], nn.Module]
Handler = Callable[[nn.Module, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Structure:
    """What a folder says about its model.

    Attributes:
        spec: the dense model, as the configuration has it: ``name`` and arguments.
        changes: what was done to it, in order.
        sizes: whole numbers, and tuples of them, among each module's attributes.
        state: its tensors by name.
    """

    spec: dict[str, Any]
    changes: list[dict[str, Any]]
    sizes: Sizes
    state: dict[str, Tensor]


def record(model: nn.Module, history: list[dict[str, Any]]) -> None:
    """Appends physical changes to ``model.changes``, as plain JSON.

    Args:
        model: what was changed.
        history: the changes in order; each names its ``op``, and its ``plugin`` unless the op is ``prune``.

    Raises:
        TypeError: a change is not plain JSON.
        ValueError: a change names no op, or no plugin that could repeat it.
    """
    entries = [json.loads(json.dumps(entry)) for entry in history]
    for entry in entries:
        if not isinstance(entry.get("op"), str):
            raise ValueError(f"a change needs an op, got {entry}")
        if entry["op"] != "prune" and not isinstance(entry.get("plugin"), str):
            raise ValueError(f"the change {entry['op']!r} needs the plugin that can repeat it")
    changed: Any = model
    changed.changes = [*getattr(model, "changes", []), *entries]


def save_structure(model: nn.Module, spec: Mapping[str, Any], history: list[dict[str, Any]], folder: Path) -> None:
    """Writes ``model.safetensors`` and ``structure.json``, each atomically.

    The structure is repeated in the header of the weights and read from there, so that a crash between the two
    files leaves an older structure beside newer weights without harm.

    Args:
        model: what to keep.
        spec: builds the dense model; where its first weights came from is left out.
        history: what was done to the dense model.
        folder: where to write; made if missing.

    Raises:
        OSError: a file could not be written; older ones are as they were.
    """
    from bigopt.store import plain, save_tensors, write_json

    structure = plain(
        {
            "schema": SCHEMA,
            "spec": {name: value for name, value in spec.items() if name != "weights"},
            "changes": history,
            "sizes": module_sizes(model),
        }
    )
    header = {"structure": json.dumps(structure, allow_nan=False)}
    save_tensors(Path(folder) / WEIGHTS, model.state_dict(), header)
    write_json(Path(folder) / STRUCTURE, structure)


def read_structure(folder: str | Path) -> Structure:
    """What a folder that :func:`save_structure` wrote holds.

    Raises:
        RequestError: a file is missing or is not what it should be.
    """
    from bigopt.store import read_json
    from bigopt.store.tensors import read_safetensors

    weights = Path(folder) / WEIGHTS
    try:
        state, header = read_safetensors(weights)
        found = json.loads(header["structure"]) if "structure" in header else read_json(Path(folder) / STRUCTURE)
    except OSError as error:
        reason = error.strerror or "no such file"
        raise RequestError(f"{folder}: cannot read {STRUCTURE} and {WEIGHTS} of a bigopt run ({reason})") from None
    except ValueError as error:
        raise RequestError(f"{weights}: the structure in its header is not JSON ({error})") from None
    _check_form(found, folder)
    return Structure(found["spec"], found["changes"], found["sizes"], state)


def load_structure(
    folder: str | Path,
    build: Build,
    handlers: Mapping[str, Handler] | None = None,
    *,
    allow_new_head: bool = False,
) -> nn.Module:
    """Rebuilds the model that :func:`save_structure` wrote; its outputs are the same to the last bit.

    Args:
        folder: where ``structure.json`` and ``model.safetensors`` are.
        build: gives the dense model of a ``spec``.
        handlers: repeat changes by ``op``, before the plugins that the changes name are asked.
        allow_new_head: keep the built model's own last layer where the weights have one for other outputs.

    Raises:
        RequestError: files that are missing or damaged, of another architecture, or with a change that nothing
            installed can repeat.
    """
    structure = read_structure(folder)
    model = build(dict(structure.spec))
    apply_structure(model, structure, str(folder), handlers, allow_new_head=allow_new_head)
    return model


def apply_structure(
    model: nn.Module,
    structure: Structure,
    source: str,
    handlers: Mapping[str, Handler] | None = None,
    *,
    allow_new_head: bool = False,
) -> bool:
    """Repeats the changes on a dense model, in place, and loads the weights.

    Args:
        model: the dense model.
        structure: what to repeat, and the weights.
        source: what messages call the place it came from.
        handlers: as for :func:`load_structure`.
        allow_new_head: as for :func:`load_structure`.

    Returns:
        Whether the model kept its own last layer.

    Raises:
        RequestError: the weights do not fit this model even after the changes, or a change cannot be repeated.
    """
    for entry in structure.changes:
        if entry["op"] != "prune":
            _handler(entry, handlers or {}, source)(model, entry)
    fits = smaller if structure.changes else equal
    state, sizes, own_head = structure.state, structure.sizes, False
    head = head_of(model, [str(entry.get("layer")) for entry in structure.changes])
    if head is not None and not same_outputs(head, state):
        own_head = allow_new_head
        if not allow_new_head:
            refuse_other_outputs(model, head, state, fits, source)
        else:
            state, sizes = with_own_head(head, state), with_own_outputs(head, sizes)
    different = compare(model.state_dict(), state, fits)
    if different:
        raise RequestError([f"{source}: weights of another model than this one ({structure.spec})", *different.lines()])
    resize(model, sizes, state, source)
    model.load_state_dict(state)
    record(model, structure.changes)
    return own_head


def _handler(entry: Mapping[str, Any], handlers: Mapping[str, Handler], source: str) -> Handler:
    """What repeats a change: only registered plugins are asked, so a file cannot name arbitrary code."""
    if entry["op"] in handlers:
        return handlers[entry["op"]]
    from bigopt import registry

    plugin = entry.get("plugin")
    if not isinstance(plugin, str):
        raise RequestError(f"{source}: the change {entry['op']!r} names no plugin that could repeat it")
    kind = entry.get("kind", "compression")
    if kind not in ("compression", "transfer", "recipe"):
        raise RequestError(
            f"{source}: the change {entry['op']!r} names {kind!r}, which is no kind of plugin that changes"
        )
    replay: Handler | None = getattr(registry.load(kind, plugin), "replay", None)
    if replay is None:
        raise RequestError(f"{source}: the plugin {plugin} cannot repeat the change {entry['op']!r}")
    return replay


def _check_form(found: Any, folder: str | Path) -> None:
    place = f"{folder}: {STRUCTURE}"
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        got = found.get("schema") if isinstance(found, dict) else type(found).__name__
        raise RequestError(f"{place}: got schema {got!r}, expected {SCHEMA}")
    for name, kind in (("spec", dict), ("changes", list), ("sizes", dict)):
        if not isinstance(found.get(name), kind):
            raise RequestError(f"{place}: {name} should be a {kind.__name__}, got {type(found.get(name)).__name__}")
    if not all(isinstance(entry, dict) and isinstance(entry.get("op"), str) for entry in found["changes"]):
        raise RequestError(f"{place}: every change needs an op")
    if not all(isinstance(sizes, dict) for sizes in found["sizes"].values()):
        raise RequestError(f"{place}: sizes should be a mapping of mappings")
