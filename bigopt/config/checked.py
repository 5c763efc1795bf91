"""What a checked configuration is: typed, complete, and able to start a run from its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigopt.store.atomic import write_atomic
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.settings import Settings, StepOptions

FILE = "config.yaml"


@dataclass(frozen=True)
class Step:
    """One step of an ordered list.

    Attributes:
        name: its key in the configuration, and the name of its row in the report.
        plugin: the plugin behind it.
        arguments: for the plugin, without those that the run fills in.
        options: what the driver does around it (compression only).
        path: where it stands in the configuration, for messages: ``compression.<name>``, ``augment``.
    """

    name: str
    plugin: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: StepOptions = field(default_factory=StepOptions)
    path: str = ""


@dataclass(frozen=True)
class Checked:
    """A configuration in which everything that can be known without data and torch is right.

    Attributes:
        settings: training, measuring, tracking and the objective; ``extra`` holds ``model`` and ``dataset``.
        model: ``name``, arguments and ``weights``; arguments that the data fill in are absent unless set.
        dataset: ``name`` and arguments.
        transfer: ``name`` and arguments.
        compression: steps in order.
        recipe: training tricks in order: ``norm``, ``augment``, then the list.
        tuner: ``name`` and arguments.
        seed: every random choice follows from it.
        resume: folder of the run to go on with; None for a fresh run.
        resolved: the same as plain values, complete; what comes from the environment is left as a reference.
        objective_given: whether the configuration names an objective; otherwise it follows from the task.
    """

    settings: Settings
    model: dict[str, Any]
    dataset: dict[str, Any]
    transfer: dict[str, Any]
    compression: list[Step]
    recipe: list[Step]
    tuner: dict[str, Any]
    seed: int
    resume: Path | None
    resolved: dict[str, Any]
    objective_given: bool = False

    def save(self, folder: str | Path) -> Path:
        """Writes the configuration as plain YAML, references unresolved; :meth:`load` starts from it.

        Raises:
            OSError: the folder cannot be written; an older file is as it was.
        """
        import yaml

        head = "# The complete configuration of this run; secrets are references to the environment.\n"
        return write_atomic(Path(folder) / FILE, head + yaml.safe_dump(self.resolved, sort_keys=False))

    @classmethod
    def load(cls, folder: str | Path) -> Checked:
        """The configuration that a run folder holds, checked again.

        Raises:
            RequestError: no run folder, a damaged file, or a configuration that is wrong by now (a plugin is gone).
        """
        from bigopt.config.checks import check

        return check(read_saved(folder))


def read_saved(folder: str | Path) -> dict[str, Any]:
    """The saved configuration of a run folder as plain values.

    Raises:
        RequestError: there is none, or it is damaged.
    """
    import yaml

    file = Path(folder) / FILE
    if not Path(folder).is_dir():
        raise RequestError(f"resume: got {str(folder)!r}, expected a run folder; there is no such folder")
    if not file.is_file():
        raise RequestError(f"resume: got {str(folder)!r}, expected a run folder; it holds no {FILE}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RequestError(f"{file}: damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{file}: damaged: got a {type(content).__name__}, expected a mapping")
    return content
