"""Imports point one way, plugins never reach into each other, and words of the vocabulary load no torch by accident."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"vocabulary"},
    {"store", "registry"},
    {"surgery", "data", "config"},
    {"train", "measure", "report", "tracking"},
    {"pipeline"},
    {"search"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever it stands in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def packages() -> list[Path]:
    return sorted(path for path in (ROOT / "bigopt").iterdir() if path.is_dir() and (path / "__init__.py").exists())


def test_every_package_has_its_place():
    assert {path.name for path in packages()} == set(LEVEL)


@pytest.mark.parametrize("package", packages(), ids=lambda path: path.name)
def test_imports_point_one_way(package):
    wrong = []
    for path in package.rglob("*.py"):
        for module in imported(path):
            parts = module.split(".")
            if parts[0] in ("bigopt_plugins",):
                wrong.append(f"{path.relative_to(ROOT)} imports a plugin: {module}")
            if parts[0] == "bigopt" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != package.name:
                allowed = LEVEL[parts[1]] < LEVEL[package.name]
                if not allowed:
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(sorted(wrong))


def test_plugins_use_no_other_kind_of_plugin():
    wrong = []
    for path in (ROOT / "plugins" / "bigopt_plugins").rglob("*.py"):
        kind = path.relative_to(ROOT / "plugins" / "bigopt_plugins").parts[0]
        for module in imported(path):
            parts = module.split(".")
            if parts[0] == "bigopt_plugins" and len(parts) > 1 and parts[1] != kind:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            if parts[0] == "bigopt" and len(parts) > 1 and parts[1] in ("cli", "pipeline", "config", "tracking"):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(sorted(wrong))


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import bigopt", {"torch", "hydra", "mlflow", "optuna"}),
        ("import bigopt.store", {"torch", "hydra", "mlflow"}),
        ("import bigopt.registry", {"torch", "hydra", "mlflow", "rich"}),
        ("import bigopt.tracking", {"mlflow", "torch"}),
        ("import bigopt.cli.main", {"torch", "hydra", "mlflow", "pytorch_lightning"}),
        ("import bigopt.train", {"pytorch_lightning", "mlflow"}),
        ("import bigopt.config", {"torch", "mlflow"}),
    ],
)
def test_what_starts_light_stays_light(code, absent):
    assert not loaded_after(code) & absent
