"""Low-rank and scaling adapters of the peft library: put in, trained, and merged into the weights again."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any, Literal

from torch import nn

from bigopt.vocabulary.errors import RequestError

Adapter = Literal["lora", "dora", "ia3"]


def need_peft() -> None:
    """Refuses adapters where peft is not installed.

    Raises:
        RequestError: it is not.
    """
    if find_spec("peft") is None:
        raise RequestError(
            "transfer.adapter: needs the package peft, which is not installed: pip install 'bigopt[peft]'"
        )


def targets(model: nn.Module, kind: Adapter, patterns: tuple[str, ...], head: str) -> tuple[list[str], list[str]]:
    """Names of the linear layers that get an adapter, and of those among them that IA3 scales at their input.

    Without patterns, transformers get them where the papers put them (as peft knows the architecture): query and value
    (Hu et al. 2022), key, value and the feed-forward's second layer (Liu et al. 2022); other nets on every
    linear layer.

    Args:
        model: the net, whose names are used.
        kind: which adapter.
        patterns: of names; a pattern without a dot is compared with a layer's last name.
        head: name of the layer that gives the logits; it never gets one.

    Raises:
        RequestError: nothing fits.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != head]
    inputs: tuple[str, ...] = ()
    if not patterns:
        patterns, inputs = _known(model, kind)
    chosen = [name for name in linear if _fits(name, patterns)] if patterns else linear
    if not chosen:
        raise RequestError(
            f"transfer.adapt: {list(patterns)} fit no linear layer below the head; there are {', '.join(linear[:12])}"
            + (", …" if len(linear) > 12 else "")
        )
    return chosen, [name for name in chosen if _fits(name, inputs)]


def insert(
    model: nn.Module, kind: Adapter, names: list[str], inputs: list[str], rank: int, alpha: float, dropout: float
) -> int:
    """Puts adapters on linear layers, in place; they change no output yet.

    LoRA: ``W + alpha / rank · B A`` (Hu et al. 2022, arXiv:2106.09685). DoRA: magnitude and direction apart (Liu et al.
    2024, arXiv:2402.09353). IA3: learned scales of outputs, or of inputs (Liu et al. 2022, arXiv:2205.05638).

    Returns:
        number of parameters of the adapters, which are all that is left trainable in the model.
    """
    import peft

    config: Any
    scale: Any = alpha  # any number works, whatever the annotation says
    if kind == "ia3":
        config = peft.IA3Config(target_modules=names, feedforward_modules=inputs)
    else:
        config = peft.LoraConfig(
            r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=names, use_dora=kind == "dora"
        )
    peft.inject_adapter_in_model(config, model)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def merge(model: nn.Module) -> int:
    """Multiplies every adapter into its layer and takes it out; outputs in evaluation mode stay the same.

    Returns:
        number of layers that had one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, adapted in found:
        merging: Any = adapted
        merging.merge(safe_merge=False)
        model.set_submodule(name, merging.get_base_layer())
    for module in model.modules():
        module.__dict__.pop("peft_config", None)
    return len(found)


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    last = name.rpartition(".")[2]
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}") or fnmatchcase(last, pattern)
        for pattern in patterns
    )


def _known(model: nn.Module, kind: Adapter) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What peft adapts in this architecture, and which of it at the input; nothing for unknown ones."""
    from peft.utils import constants

    name = str(getattr(getattr(model, "config", None), "model_type", None))
    if kind != "ia3":
        return tuple(constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(name, ())), ()
    return (
        tuple(constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(name, ())),
        tuple(constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(name, ())),
    )
