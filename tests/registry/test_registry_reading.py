"""What source tells: signatures, inherited ones too, defaults, types, facts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigopt.registry import Plugin, bind, get, probe
from bigopt.registry.reading import read
from bigopt.registry.source import find_spec, locate
from bigopt.registry.syntax import OutOfSight
from bigopt.vocabulary.errors import RequestError


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here everything must be visible in the source."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a process was asked")

    monkeypatch.setattr(probe, "_ask", refuse)


def shown(found: Plugin) -> list[tuple[str, str, Any, bool]]:
    assert found.error is None
    return [(a.name, a.annotation, a.default, a.required) for a in found.arguments or ()]


def test_every_kind_of_argument(plugin: Callable[..., Plugin]) -> None:
    found = plugin("""
        LIMIT = -3
        class Theirs:
            '''Summary.'''
            def __init__(self, a, b: int, c: float = 1e-3, *rest, d=LIMIT, e: tuple[int, ...] = (1, 2), **more): ...
        """)
    assert shown(found) == [
        ("a", "", None, True),
        ("b", "int", None, True),
        ("c", "float", 0.001, False),
        ("d", "", -3, False),
        ("e", "tuple[int, ...]", (1, 2), False),
    ]
    assert found.variadic and bind(found, {"a": 1, "b": 2, "z": 5}, "") == {"a": 1, "b": 2, "z": 5}


def test_a_function_and_the_docstring_of_the_module(plugin: Callable[..., Plugin]) -> None:
    found = plugin("'''What the module does.\n\nAnd more.'''\ndef make(*, seed: int = 0): ...\n", "make", "datasets")
    assert (found.summary, shown(found)) == ("What the module does.", [("seed", "int", 0, False)])


def test_a_constructor_of_another_package_is_left_to_a_process(plugin: Callable[..., Plugin]) -> None:
    found = plugin(
        "from theirs_base.middle import Middle\nclass Theirs(Middle): ...\n",
        theirs_base____init__="",
        theirs_base__middle="class Middle:\n    def __init__(self, depth: int = 7): ...\n",
    )
    assert found.error is not None and "a process was asked" in found.error


def test_inherited_constructors_of_one_package(site: Path) -> None:
    package = site / "their"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from .plugin import Theirs as Exported\n")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "deep.py").write_text(
        "class Deep:\n    def __init__(self, depth: int = 7): ...\n    needs = 'frozen'\n"
    )
    (package / "inner" / "middle.py").write_text(
        "import their.inner.deep\nclass Middle(their.inner.deep.Deep):\n    leaves = 'frozen'\n"
    )
    (package / "mixin.py").write_text(
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Mixin(Generic[T]): ...\n"
    )
    (package / "plugin.py").write_text(
        "from . import mixin\nfrom .inner.middle import Middle as M\n"
        "class Theirs(mixin.Mixin[int], M):\n    needs = 'trainable'\n"
    )
    for module, attribute in (("their.plugin", "Theirs"), ("their", "Exported")):
        found = read(module, attribute)
        assert [(a.name, a.default) for a in found.arguments] == [("depth", 7)]
        assert found.facts == {"needs": "trainable", "leaves": "frozen"}
    assert not any(name.partition(".")[0] == "their" for name in sys.modules)


@pytest.mark.parametrize("home", ["bigopt", "bigopt.vocabulary.part"])
def test_a_part_without_a_constructor(plugin: Callable[..., Plugin], home: str) -> None:
    found = plugin(f"from {home} import Part\nclass Theirs(Part):\n    leaves = 'frozen'\n    strengths = (0.1, 0.5)\n")
    assert shown(found) == []
    assert found.facts == {"needs": "trainable", "leaves": "frozen", "strengths": (0.1, 0.5)}


def test_type_aliases_are_written_out(plugin: Callable[..., Plugin]) -> None:
    found = plugin("""
        from typing import Literal
        from bigopt.vocabulary.objective import Mode
        Criterion = Literal["l1", "l2"]
        Either = Criterion | None
        class Theirs:
            def __init__(self, a: Criterion = "l1", b: "Either" = None, c: Mode = "max", d: list[Criterion] = []): ...
        """)
    assert [a.annotation for a in found.arguments or ()] == [
        "Literal['l1', 'l2']",
        "Literal['l1', 'l2'] | None",
        "Literal['max', 'min']",
        "list[Literal['l1', 'l2']]",
    ]
    with pytest.raises(RequestError) as caught:
        bind(found, {"a": "l3", "b": "l", "c": "maxx", "d": ["l1", "x"]}, "compression.theirs")
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    "source",
    [
        "class Theirs(dict): ...",
        "import base64\nclass Theirs(base64.Thing): ...",
        "class Theirs:\n    def __init__(self, a=1 / 255): ...",
        "class Theirs:\n    def __init__(self, a=float('inf')): ...",
        "import math\nclass Theirs:\n    def __init__(self, a=math.pi): ...",
        "from dataclasses import dataclass\n@dataclass\nclass Theirs:\n    a: int = 1",
        "def wrap(f): return f\nclass Theirs:\n    @wrap\n    def __init__(self, a=1): ...",
        "class Theirs:\n    def __new__(cls, a=1): ...",
        "class Theirs(metaclass=type('M', (type,), {})): ...",
        "try:\n    import torch\nexcept ImportError:\n    torch = None\nTheirs = torch",
        "if __name__:\n    class Theirs: ...\nelse:\n    class Theirs: ...",
        "from os import *\n",
        "def __getattr__(name): ...\n",
        "class Theirs:\n    if True:\n        def __init__(self, a=1): ...",
        "class Base: ...\nBase = wrap(Base)\nclass Theirs(Base): ...",
        "X = 1\nX = 2\nclass Theirs:\n    def __init__(self, a=X): ...",
        "class Theirs:\n    __init__ = make()",
    ],
)
def test_what_source_cannot_tell_is_not_guessed(site: Path, source: str) -> None:
    (site / "opaque.py").write_text(source)
    with pytest.raises(OutOfSight):
        read("opaque", "Theirs")


def test_a_class_body_under_a_condition_of_the_module_is_seen(site: Path) -> None:
    (site / "conditional.py").write_text("if True:\n    class Theirs:\n        def __init__(self, a=1): ...\n")
    assert [a.name for a in read("conditional", "Theirs").arguments] == ["a"]


def test_imports_in_a_circle_end(site: Path) -> None:
    (site / "circle").mkdir()
    (site / "circle" / "__init__.py").write_text("")
    (site / "circle" / "a.py").write_text("from circle.b import Theirs\n")
    (site / "circle" / "b.py").write_text(
        "from circle.a import Theirs\nclass Self(Self2): ...\nclass Self2(Self): ...\n"
    )
    with pytest.raises(OutOfSight):
        read("circle.a", "Theirs")
    with pytest.raises((OutOfSight, RecursionError)):
        read("circle.b", "Self")


def test_source_in_another_encoding(site: Path) -> None:
    (site / "latin.py").write_bytes("# coding: latin-1\ndef f(a='é'): ...\n".encode("latin-1"))
    assert read("latin", "f").arguments[0].default == "é"


def test_namespace_packages_and_archives(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "outer_ns" / "inner_ns").mkdir(parents=True)
    (site / "outer_ns" / "inner_ns" / "m.py").write_text("def f(a=1): ...\n")
    assert [a.name for a in read("outer_ns.inner_ns.m", "f").arguments] == ["a"]
    assert "outer_ns" not in sys.modules
    from zipfile import ZipFile

    with ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("packed/__init__.py", "")
        archive.writestr("packed/m.py", "def f(zipped=1): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "packed.zip"))
    assert [a.name for a in read("packed.m", "f").arguments] == ["zipped"]
    assert "packed" not in sys.modules


def test_a_finder_as_editable_installs_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import spec_from_file_location

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "elsewhere" / "m.py").write_text("def f(edited=1): ...\n")

    class Finder:
        @classmethod
        def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
            file = str(tmp_path / "elsewhere" / "__init__.py")
            return spec_from_file_location(name, file) if name == "mapped" else None

    class Faulty:
        @classmethod
        def find_spec(cls, *_: Any) -> Any:
            raise RuntimeError("a finder that fails")

    monkeypatch.setattr(sys, "meta_path", [Faulty, *sys.meta_path, Finder])
    assert locate("mapped.m") == tmp_path / "elsewhere" / "m.py"
    assert [a.name for a in read("mapped.m", "f").arguments] == ["edited"]
    assert find_spec("mapped.nothing") is None and find_spec("mapped.m.deeper") is None


def test_the_built_in_plugin_is_found_where_it_is_installed() -> None:
    found = get("models", "resnet")
    assert {"in_channels", "num_classes", "depth", "width"} <= {a.name for a in found.arguments or ()}
    assert found.facts["kinds"] == ("image",)
