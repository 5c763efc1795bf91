"""Models of the transformers library from a configuration or a local folder; nothing is ever downloaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.store.quiet import quiet_transformers
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models._common import choice, refuse

SHOWN = 5
"""Names of tensors that a message lists."""


def from_config(
    family: str, model_type: str, defaults: Mapping[str, Any], overrides: Mapping[str, Any], fixed: Mapping[str, Any]
) -> nn.Module:
    """A freshly initialised model with attention as plain matrix products (which tools can trace and count).

    Args:
        family: name of the auto class, such as ``AutoModelForImageClassification``.
        model_type: architecture, as transformers calls it.
        defaults: settings that are used where this architecture has them.
        overrides: settings of the user; unknown ones are refused.
        fixed: settings from the data; they replace the user's.

    Raises:
        RequestError: unknown architecture, unknown settings, or settings that contradict each other.
    """
    import transformers

    auto = getattr(transformers, family)
    known = {config.model_type for config in auto._model_mapping}
    refuse(choice("model_type", model_type, sorted(known)))
    plain = transformers.AutoConfig.for_model(model_type)
    refuse(_unknown(overrides, plain))
    settings = {name: value for name, value in defaults.items() if hasattr(plain, name)}
    settings |= {name: list(value) if isinstance(value, tuple) else value for name, value in overrides.items()}
    settings |= {name: value for name, value in fixed.items() if name == "num_labels" or hasattr(plain, name)}
    try:
        config = transformers.AutoConfig.for_model(model_type, **settings)
        config.architectures = config.architectures or []  # None breaks those with several heads to choose from
        made: nn.Module = auto.from_config(config, attn_implementation="eager", dtype=torch.float32)
    except Exception as error:
        raise RequestError(f"config: transformers refuses it for {model_type}: {_line(error)}") from error
    return made


def from_folder(family: str, folder: str, num_labels: int) -> nn.Module:
    """A pretrained model out of a local folder, with a new last layer if the classes differ.

    Args:
        family: name of the auto class.
        folder: as ``save_pretrained`` wrote it.
        num_labels: classes or regression targets.

    Raises:
        RequestError: no such folder, files that cannot be loaded safely, or weights of another architecture.
    """
    import transformers

    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise RequestError(
            f"pretrained: got {folder!r}, expected a local folder with a config.json, or an installed package that "
            "holds one (nothing is fetched)"
        )
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(path, num_labels=num_labels, **options)
        with quiet_transformers():
            made, found = getattr(transformers, family).from_pretrained(
                path,
                config=config,
                attn_implementation="eager",
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        raise RequestError(f"pretrained: cannot load {folder}: {_line(error)}") from error
    _check_loaded(made, found, folder)
    trained: nn.Module = made.train()
    return trained


def try_out(model: nn.Module, example: Tensor, what: str) -> None:
    """Runs a model once, so that one that cannot take the data says so before anything is trained.

    Raises:
        RequestError: it cannot.
    """
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    except Exception as error:
        raise RequestError(f"{what} cannot take samples of shape {list(example.shape[1:])}: {_line(error)}") from error
    finally:
        model.train(training)


def _unknown(overrides: Mapping[str, Any], config: Any) -> list[str]:
    """A problem for each setting that the architecture does not have, since transformers would silently keep it."""
    names = set(config.to_dict()) | set(type(config).attribute_map)
    problems = []
    for name in overrides:
        problems += [line.replace("'config", "'", 1) for line in choice(f"config.{name}", name, sorted(names))]
    return problems


def _check_loaded(model: Any, found: Mapping[str, Any], folder: str) -> None:
    """Only what lies behind the encoder may be new; it is said aloud."""
    encoder = model.base_model_prefix + "."
    names = [*found["missing_keys"], *(row[0] for row in found["mismatched_keys"])]
    lost = sorted(name for name in names if name.startswith(encoder) and "pooler" not in name)
    if lost:
        more = f", … and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise RequestError(
            f"pretrained: {folder} lacks {len(lost)} fitting tensors of {type(model).__name__}: "
            + ", ".join(lost[:SHOWN])
            + more
        )
    if names:
        logging.getLogger("bigopt").warning(
            "%s has no fitting %s: new ones were made", folder, ", ".join(sorted(names))
        )


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
