"""``bigopt new-plugin``: a small distribution with a working plugin of one kind, to be changed."""

from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from bigopt.cli._terminal import emit
from bigopt.registry import GROUPS, catalogue
from bigopt.registry.suggest import suggestion
from bigopt.store import write_atomic
from bigopt.vocabulary.errors import RequestError

_TEMPLATES = Path(__file__).parent / "_templates"
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?")
_CHOICE = {
    "models": "model={name}",
    "datasets": "dataset={name}",
    "compression": "'compression=[{name}]'",
    "transfer": "transfer={name}",
    "tuners": "tuner={name}",
    "recipe": "'recipe=[{name}]'",
}
"""How a plugin of each kind is chosen on the command line."""

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "0.1.0"
description = "{kind} plugin {name} for bigopt"
requires-python = ">=3.11"
dependencies = ["bigopt"]

[project.entry-points."{group}"]
{name} = "{module}:{attribute}"

[tool.setuptools]
py-modules = ["{module}"]
"""


def main(argv: list[str]) -> int:
    """Writes a new plugin's distribution.

    Args:
        argv: the words after ``new-plugin``.

    Returns:
        0, or 2 where the request is wrong; nothing is written then.
    """
    parser = argparse.ArgumentParser("bigopt new-plugin", description="Writes a small distribution with one plugin.")
    parser.add_argument("kind", help=", ".join(GROUPS))
    parser.add_argument("name", help="what the configuration will call it, such as my_method")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to write it; default: ./bigopt-<name>")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        folder = write(args.kind, args.name, args.folder)
    except (RequestError, OSError) as error:
        print(f"bigopt: {error}", file=sys.stderr)
        return 2
    choice = _CHOICE[args.kind].format(name=args.name)
    shown = shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}")  # pip takes a bare word for a name
    emit(f"{folder}: written.\n  pip install -e {shown}\n  bigopt plugins {args.kind}\n  bigopt {choice}")
    return 0


def write(kind: str, name: str, folder: Path | None = None) -> Path:
    """Writes the distribution.

    Args:
        kind: of plugin.
        name: what the configuration will call it.
        folder: where to; None means ``bigopt-<name>`` in the working folder.

    Returns:
        The folder.

    Raises:
        RequestError: unknown kind, a name that cannot be used, or a folder that holds something.
        OSError: the folder cannot be written.
    """
    check_name(kind, name)
    distribution = f"bigopt-{re.sub('_+', '-', name).lower()}"
    folder = Path(distribution) if folder is None else folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"new-plugin: {folder} is already there; nothing was overwritten, choose another --folder")
    for path, text in files(kind, name, distribution).items():
        write_atomic(folder / path, text)
    return folder


def check_name(kind: str, name: str) -> None:
    """Whether a plugin may have this name.

    Raises:
        RequestError: unknown kind, no identifier, or a name that is taken.
    """
    if kind not in GROUPS:
        raise RequestError(
            f"new-plugin: got kind {kind!r}, expected one of {', '.join(GROUPS)}{suggestion(kind, GROUPS)}"
        )
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise RequestError(f"new-plugin: got name {name!r}, expected letters, digits and _, such as my_method")
    if name in catalogue(kind):
        holder = catalogue(kind)[name].distribution
        raise RequestError(f"new-plugin: {kind} already has a plugin {name!r}, of {holder}; choose another name")


def files(kind: str, name: str, distribution: str) -> Mapping[str, str]:
    """The distribution's files, by path.

    Args:
        kind: of plugin.
        name: what the configuration will call it.
        distribution: what pip will call it.
    """
    source = (_TEMPLATES / f"{kind}.py").read_text(encoding="utf-8")
    test = (_TEMPLATES / f"{kind}_test.py").read_text(encoding="utf-8")
    taken = _names(source) | _names(test) | set(dir(builtins))
    camel = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    names = {"MyPlugin": _free(camel, taken, "Plugin"), "my_function": _free(name, taken, "_plugin")}
    attribute = names["MyPlugin" if "class MyPlugin" in source else "my_function"]
    words = {**names, "my_plugin": name}
    about = {
        "distribution": distribution,
        "kind": kind,
        "name": name,
        "group": GROUPS[kind],
        "module": f"bigopt_{name}",
        "attribute": attribute,
    }
    return {
        "pyproject.toml": _PYPROJECT.format(**about),
        f"bigopt_{name}.py": _renamed(source, words),
        f"tests/test_{name}.py": _renamed(test, words),
    }


def _renamed(text: str, words: Mapping[str, str]) -> str:
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def _free(wanted: str, taken: set[str], ending: str) -> str:
    """A name that does not hide one that the template uses: a plugin may be called ``part``."""
    return wanted + ending if wanted in taken else wanted


def _names(source: str) -> set[str]:
    """Every name that occurs in a program."""
    return {word for node in ast.walk(ast.parse(source)) for word in _words(node)}


def _words(node: ast.AST) -> list[str]:
    if isinstance(node, ast.alias):
        return [node.asname or node.name]
    return [str(value) for field in ("id", "name", "arg", "attr") if (value := getattr(node, field, None))]
