"""What is found, who wins, and that nothing is imported on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import install

from bigopt.registry import GROUPS, bind, build, discover, get, load
from bigopt.vocabulary.errors import RequestError

CANARY = """\
from pathlib import Path
Path(r"{canary}").touch()
"""
SMALL = '''\
    """A module."""
    class Small:
        """Does little.

        More.
        """
        def __init__(self, ratio: float = 0.5, *, size: "int | None" = None): ...
    '''


def test_an_entry_point_alone_is_enough(site: Path) -> None:
    install(site, "Their-Package", {"compression": {"small": "small:Small"}}, {"small.py": SMALL}, "2.1")
    found = discover()["compression"]["small"]
    assert (found.kind, found.name, found.distribution, found.version) == (
        "compression",
        "small",
        "Their-Package",
        "2.1",
    )
    assert (found.summary, found.error, found.conf_dir) == ("Does little.", None, None)
    assert [(a.name, a.annotation, a.default, a.required) for a in found.arguments or ()] == [
        ("ratio", "float", 0.5, False),
        ("size", "int | None", None, False),
    ]
    assert "small" not in sys.modules
    assert load("compression", "small")(0.1).__class__.__name__ == "Small"


def test_every_kind_has_its_group() -> None:
    assert set(discover()) == set(GROUPS) == {"models", "datasets", "compression", "transfer", "tuners", "recipe"}


def test_nothing_is_imported_and_the_parent_neither(site: Path, tmp_path: Path) -> None:
    canary = CANARY.format(canary=tmp_path / "imported")
    install(
        site,
        "heavy",
        {"models": {"heavy": "canary_parent.inner.heavy:Heavy", "light": "canary_parent.light:Light"}},
        {
            "canary_parent/__init__.py": canary,
            "canary_parent/inner/__init__.py": canary,
            "canary_parent/inner/heavy.py": canary + "class Heavy:\n    def __init__(self, a: int): ...\n",
            "canary_parent/light.py": "class Light: ...\n",
        },
    )
    found = discover()["models"]
    assert found["heavy"].error is None
    assert [a.name for a in found["heavy"].arguments or ()] == ["a"]
    assert bind(found["heavy"], {"a": 3}, "model") == {"a": 3}
    assert not (tmp_path / "imported").exists()
    assert not any(name.startswith("canary_parent") for name in sys.modules)


def test_selecting_one_imports_only_that_one(site: Path, tmp_path: Path) -> None:
    install(
        site,
        "two",
        {"models": {"one": "two_one:One", "two": "two_two:Two"}},
        {
            "two_one.py": "class One: ...\n",
            "two_two.py": CANARY.format(canary=tmp_path / "imported") + "class Two: ...\n",
        },
    )
    assert load("models", "one").__name__ == "One"
    assert not (tmp_path / "imported").exists()
    load("models", "two")
    assert (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        ("broken_one:Plugin", None, "module 'broken_one' is not there"),
        ("broken_no.such.place:Plugin", None, "module 'broken_no' is not there"),
        ("broken_one.deeper:Plugin", "", "module 'broken_one.deeper' is not there"),
        ("broken_one:Plugin", "class Plugin(:\n", "broken_one.py, line 1: "),
        ("broken_one:Plugin", "x = 1\n", "module 'broken_one' has no 'Plugin'"),
        ("broken_one:Plugin", "a = b'\\0'\n\0", "null bytes"),
        ("broken_one:Plugin", "Plugin = 3\n", "Plugin is not callable"),
        ("broken_one", "", "not of the form package.module:Attribute"),
        ("broken one:Plugin", "", "not of the form package.module:Attribute"),
        ("broken_one:Plugin", "class Plugin:\n  def __init__(self, a, /, b=1): ...\n", "positional-only arguments"),
        ("broken_one:Plugin", "async def Plugin(): ...\n", "coroutine"),
        ("broken_one:Plugin", "def Plugin(recover, strict=True): ...\n", "belong to bigopt: recover, strict"),
        ("broken_one:Plugin", "def Plugin(name): ...\n", "belong to bigopt: name"),
        ("broken_one:Plugin", "import nonsense_xyz\nPlugin = nonsense_xyz.y\n", "ModuleNotFoundError"),
        ("broken_one:Plugin", "import sys\nsys.exit(0)\nPlugin = print\n", "SystemExit"),
        ("broken_one:Plugin", "import os\nos._exit(7)\nPlugin = print\n", "ended the interpreter with code 7"),
    ],
)
def test_a_broken_plugin_says_why_and_breaks_no_other(site: Path, target: str, source: str | None, reason: str) -> None:
    files = {"fine.py": SMALL} | ({} if source is None else {"broken_one.py": source})
    install(site, "mixed", {"compression": {"bad": target, "fine": "fine:Small"}}, files)
    bad = get("compression", "bad")
    assert bad.error is not None and reason in bad.error
    assert bad.arguments is None
    for select in (
        lambda: load("compression", "bad"),
        lambda: build("compression", "bad", {}),
        lambda: bind(bad, {}, ""),
    ):
        with pytest.raises(RequestError) as caught:
            select()
        assert str(caught.value) == f"compression plugin 'bad' (mixed 1.0) is broken: {bad.error}"
    assert get("compression", "fine").error is None
    assert get("compression", "channel_pruning").error is None


def test_reserved_names_depend_on_the_kind(site: Path) -> None:
    source = "def f(weights=None): ...\ndef g(strict=False): ...\n"
    both = {"weighty": "reserved:f", "strict": "reserved:g"}
    install(site, "reserved", {"models": both, "datasets": both, "compression": both}, {"reserved.py": source})
    broken = {(kind, name) for kind in ("models", "datasets", "compression") for name in both if get(kind, name).error}
    assert broken == {("models", "weighty"), ("compression", "strict")}


def test_an_import_that_fails_is_told_when_the_plugin_is_selected(site: Path) -> None:
    source = "import nonsense_xyz\nclass Needy: ...\n"
    extra = 'Requires-Dist: nonsense-xyz>=1; extra == "more"\nProvides-Extra: more\n'
    install(site, "needy", {"models": {"needy": "needy:Needy"}}, {"needy.py": source}, metadata=extra)
    assert get("models", "needy").error is None
    with pytest.raises(RequestError) as caught:
        load("models", "needy")
    assert str(caught.value) == (
        "models plugin 'needy' (needy 1.0) cannot be imported: ModuleNotFoundError: "
        "No module named 'nonsense_xyz'; try: pip install 'needy[more]'"
    )


def test_nobody_takes_a_name_of_bigopt(site: Path) -> None:
    install(site, "aaa", {"models": {"resnet": "small:Small"}}, {"small.py": SMALL})
    found = discover()["models"]
    assert found["resnet"].distribution == "bigopt"
    assert found["resnet@aaa"].error == (
        f"the name 'resnet' is taken by bigopt {found['resnet'].version} (bigopt_plugins.models.resnet:ResNet)"
    )


def test_of_two_strangers_the_first_in_the_alphabet_wins_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zeta", "alpha"):
        install(tmp_path / name, name, {"recipe": {"same": f"{name}_module:Small"}}, {f"{name}_module.py": SMALL})
    for order in (("zeta", "alpha"), ("alpha", "zeta")):
        with monkeypatch.context() as patch:
            for name in order:
                patch.syspath_prepend(str(tmp_path / name))
            found = discover()["recipe"]
            assert found["same"].distribution == "alpha"
            assert found["same@zeta"].error == "the name 'same' is taken by alpha 1.0 (alpha_module:Small)"
            with pytest.raises(RequestError, match=r"did you mean same\?"):
                get("recipe", "sane")


def test_a_shadowed_distribution_does_not_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("2.0", "1.0"):
        install(tmp_path / version, "same-name", {"recipe": {"once": "once:Small"}}, {"once.py": SMALL}, version)
        monkeypatch.syspath_prepend(str(tmp_path / version))
    found = [plugin for name, plugin in discover()["recipe"].items() if name.startswith("once")]
    assert [plugin.version for plugin in found] == ["1.0"]


def test_broken_metadata_harms_nobody(site: Path) -> None:
    install(site, "torn", {"recipe": {"x": "y:z"}}, {})
    (site / "torn-1.0.dist-info" / "entry_points.txt").write_text(
        "[bigopt.recipe]\nno equals sign\nbad name = small:Small\n"
    )
    (site / "torn-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00")
    (site / "binary-1.0.dist-info").mkdir()
    (site / "binary-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[bigopt.recipe]")
    found = discover()["recipe"]
    assert "cannot stand in a configuration" in str(found["no equals sign"].error)
    assert "cannot stand in a configuration" in str(found["bad name"].error)
    assert found["augment"].error is None


def test_a_new_distribution_is_seen_in_the_same_process(site: Path) -> None:
    assert "small" not in discover()["compression"]
    install(site, "late", {"compression": {"small": "small:Small"}}, {"small.py": SMALL})
    assert "small" in discover()["compression"]


def test_the_conf_folder_of_the_package(site: Path) -> None:
    files = {
        "pkg/__init__.py": "",
        "pkg/sub/__init__.py": "",
        "pkg/sub/m.py": SMALL,
        "pkg/conf/compression/x.yaml": "a: 1",
    }
    install(site, "pkg", {"compression": {"x": "pkg.sub.m:Small"}}, files)
    assert get("compression", "x").conf_dir == site / "pkg" / "conf"


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"models: there is no plugin 'resnt'; installed: .*; did you mean resnet\?"):
        get("models", "resnt")
    with pytest.raises(RequestError, match=r"plugins: got 'model', expected a kind: models, .*did you mean models\?"):
        get("model", "resnet")


def test_built_ins_are_all_seen_without_running_any(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """if True:
        import json, sys
        from bigopt.registry import discover, probe
        probe.probe = None
        found = {f"{kind}/{name}": plugin.error for kind, all in discover().items() for name, plugin in all.items()}
        heavy = [name for name in ("torch", "hydra", "omegaconf", "mlflow", "rich", "numpy") if name in sys.modules]
        print(json.dumps([found, heavy, [name for name in sys.modules if name.startswith("bigopt_plugins")]]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, heavy, imported = json.loads(done.stdout)
    assert found["models/resnet"] is None and found["compression/channel_pruning"] is None
    assert {name for name, error in found.items() if error and "NoneType" in error} == set()
    assert (heavy, imported) == ([], [])
