"""Which tuner needs the fewest epochs? ``record`` trains the curves once, ``replay`` searches on them.

python experiments/search_fashion_mnist/run.py record --dataset digits
python experiments/search_fashion_mnist/run.py replay --dataset digits
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("record", "replay", "report"))
    parser.add_argument("--dataset", choices=("digits", "fashion_mnist"), default="fashion_mnist")
    parser.add_argument("--part", default="0/1", help="record: this process's share of the configurations")
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--methods", default="", help="replay: comma-separated names, all of them by default")
    asked = parser.parse_args()
    name = f"bigopt_{asked.what}_{asked.dataset}_{asked.part.replace('/', '_')}.lock"
    held = (Path(tempfile.gettempdir()) / name).open("w")  # kept open, and with it locked, until the process ends
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit("another process is at it") from None
    if asked.what == "record":
        from curves import record

        part, parts = asked.part.split("/")
        record(asked.dataset, int(part), int(parts))
    elif asked.what == "replay":
        from replay import replay

        replay(asked.dataset, asked.replays, [name for name in asked.methods.split(",") if name])
    else:
        from report import report

        report()


if __name__ == "__main__":
    main()
