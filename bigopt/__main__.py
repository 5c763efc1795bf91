"""``python -m bigopt`` is the console script."""

from __future__ import annotations

from bigopt.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
