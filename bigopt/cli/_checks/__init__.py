"""What ``bigopt doctor`` looks at."""

from bigopt.cli._checks.check import Check, Status, ask

__all__ = ["Check", "Status", "ask"]
