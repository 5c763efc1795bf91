"""The numbers that say how large the parts of a model are: what its modules' forward passes read, beside tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bigopt.pipeline.keys import Sizes
from bigopt.vocabulary.errors import RequestError


def module_sizes(model: nn.Module) -> Sizes:
    """Public whole numbers, and tuples of them, among the attributes of each module, by its name."""
    found = {
        name: {key: value for key, value in vars(module).items() if not key.startswith("_") and _is_size(value)}
        for name, module in model.named_modules()
    }
    return {name: sizes for name, sizes in found.items() if sizes}


def resize(model: nn.Module, sizes: Sizes, state: Mapping[str, Tensor], source: str) -> None:
    """Gives modules the recorded sizes, and their tensors the shapes of ``state``; values are loaded afterwards.

    Only numbers that are there already are changed, and only into numbers.

    Raises:
        RequestError: a size of something that the model does not have.
    """
    known = module_sizes(model)
    for name, wanted in sizes.items():
        for key, value in wanted.items():
            old = known.get(name, {}).get(key)
            new = tuple(value) if isinstance(value, list) else value
            if type(new) is not type(old) or not _is_size(new):
                raise RequestError(f"{source}: sizes.{name}.{key}: got {value!r}, the model has {old!r}")
            if new != old:
                setattr(model.get_submodule(name), key, new)
    replaced: dict[int, Tensor] = {}
    for name, old_tensor in model.state_dict(keep_vars=True).items():
        shape = state[name].shape
        if old_tensor.shape != shape:
            fresh = replaced.setdefault(id(old_tensor), _empty(old_tensor, shape))
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, fresh)


def _empty(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    fresh = old.detach().new_empty(shape)
    return nn.Parameter(fresh, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else fresh


def _is_size(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) > 0 and all(_is_size(one) and not isinstance(one, tuple) for one in value)
    return isinstance(value, int) and not isinstance(value, bool)
