"""Taking a whole module out of a model, from its name alone, so that it can be repeated."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn

How = Literal["identity", "delete", "add", "cat"]
ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}


@dataclass(frozen=True)
class Whole:
    """A module that can be left out.

    Attributes:
        name: as in ``model.named_modules()``.
        how: ``identity`` lets its input pass; ``delete`` takes it out of its list; ``add`` drops it from a sum;
            ``cat`` drops it from a concatenation, with the channels of those who read that.
        owner: the module whose forward pass calls it, for ``add`` and ``cat``.
    """

    name: str
    how: How
    owner: str = ""

    def entry(self) -> dict[str, Any]:
        """The change as plain JSON."""
        return {
            "op": "leave_out", "plugin": "random_pruning", "module": self.name, "how": self.how, "owner": self.owner
        }  # fmt: skip

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Whole:
        """What an entry says.

        Raises:
            ValueError: it says something else.
        """
        if entry.get("how") not in ("identity", "delete", "add", "cat"):
            raise ValueError(f"unknown way {entry.get('how')!r}")
        return cls(str(entry.get("module", "")), entry["how"], str(entry.get("owner", "")))


@dataclass(frozen=True)
class Joined:
    """A module whose output goes into a sum or a concatenation, in the graph of its owner.

    Attributes:
        graph: the owner's forward pass, its modules being one node each.
        node: the module's call.
        join: the sum or concatenation.
        how: which of the two.
        others: what else is joined.
    """

    graph: fx.Graph
    node: fx.Node
    join: fx.Node
    how: Literal["add", "cat"]
    others: tuple[fx.Node, ...]


def leave_out(model: nn.Module, whole: Whole) -> None:
    """Takes the module out, in place; readers of a concatenation still expect its channels.

    Raises:
        ValueError: the model has no such module in such a place.
    """
    parent, _, leaf = whole.name.rpartition(".")
    if whole.how == "identity":
        model.set_submodule(whole.name, nn.Identity())
        return
    if whole.how == "delete":
        siblings = model.get_submodule(parent)
        if not isinstance(siblings, nn.ModuleList):
            raise ValueError(f"{whole.name} is in no list")
        del siblings[int(leaf)]
        return
    owner = model.get_submodule(whole.owner)
    found = joins(owner).get(whole.name.removeprefix(f"{whole.owner}."))
    if found is None or found.how != whole.how:
        raise ValueError(f"{whole.name} is in no {whole.how} of {whole.owner}")
    model.set_submodule(whole.owner, _without(owner, found))


def joins(owner: nn.Module) -> dict[str, Joined]:
    """Modules that an owner's forward pass adds or concatenates to something, by their name in the owner.

    Nothing is run; a forward pass that cannot be followed, or that is another one in training, has none.
    """
    graph = _followed(owner)
    found = {}
    for node in graph.nodes if graph is not None else ():
        join = next(iter(node.users), None)
        if node.op != "call_module" or len(node.users) != 1 or join is None:
            continue
        how, operands = _operands(join)
        if how is not None and operands.count(node) == 1 and len(operands) > 1:
            assert graph is not None
            others = tuple(each for each in operands if each is not node)
            found[str(node.target)] = Joined(graph, node, join, how, others)
    return found


def _operands(join: fx.Node) -> tuple[Literal["add", "cat"] | None, list[fx.Node]]:
    """What a node joins; none where it is no plain sum of two tensors or concatenation of channels."""
    first: Any = join.args[0] if join.args else None
    if join.op in ("call_function", "call_method") and join.target in ADDITIONS and not join.kwargs:
        return ("add", list(join.args)) if all(isinstance(a, fx.Node) for a in join.args) else (None, [])  # type: ignore[arg-type]
    if join.op == "call_function" and join.target in CONCATENATIONS and isinstance(first, list | tuple):
        dim = join.args[1] if len(join.args) > 1 else join.kwargs.get("dim", 0)
        if dim == 1 and all(isinstance(a, fx.Node) for a in first):
            return "cat", list(first)
    return None, []


def _without(owner: nn.Module, joined: Joined) -> fx.GraphModule:
    """The owner with a forward pass that leaves the module out, and everything that only the module read."""
    graph, join = joined.graph, joined.join
    if len(joined.others) == 1:
        join.replace_all_uses_with(joined.others[0])
        graph.erase_node(join)
    else:
        join.args = (list(joined.others), *join.args[1:])
    made = fx.GraphModule(owner, graph, class_name=type(owner).__name__)
    made.graph.eliminate_dead_code()
    made.delete_all_unused_submodules()
    made.recompile()
    made.training = owner.training
    return made


class _Shallow(fx.Tracer):
    """Follows one module's own forward pass only."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Every module inside is one call."""
        return True


def _followed(owner: nn.Module) -> fx.Graph | None:
    """The owner's forward pass as a graph, if it takes tensors only and does the same in both modes."""
    import inspect

    if not isinstance(owner, fx.GraphModule):
        kinds = inspect.signature(owner.forward).parameters.values()
        if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in kinds):
            return None
    training = owner.training
    try:
        graphs = []
        for owner.training in (True, False):
            graphs.append(_Shallow().trace(owner))
    except Exception:  # whatever a stranger's forward pass does with a stand-in for its input
        return None
    finally:
        owner.training = training
    return graphs[0] if str(graphs[0]) == str(graphs[1]) else None
