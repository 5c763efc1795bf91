"""One of the other ranks of a run: the same pipeline on the configuration that rank 0 wrote down."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bigopt.config import Checked


@contextmanager
def ranks(checked: Checked, folder: Path) -> Iterator[None]:
    """Starts the other ranks that ``trainer.devices`` asks for; inside a rank, and for one device, nothing."""
    from bigopt.train.ddp import world_size
    from bigopt.train.launch import launch

    wanted = checked.settings.trainer.devices
    if wanted == 1 or world_size() > 1:
        yield
        return
    checked.save(folder)
    with launch([sys.executable, "-m", "bigopt.pipeline.rank", str(folder)], wanted):
        yield


def main(argv: Sequence[str]) -> None:
    """Runs the pipeline of a run folder as the rank that the environment names."""
    from bigopt.pipeline.spine import execute

    folder = Path(argv[0])
    execute(Checked.load(folder), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
