"""Environment variables by which a sweep tells its jobs what they are; launchers carry them to where the job runs."""

from __future__ import annotations

PARENT = "BIGOPT_PARENT_RUN"
"""The sweep's tracking run. A job that has one never reads the test split, unless :data:`TEST` says so."""

TRIAL = "BIGOPT_TRIAL"
"""Optuna's number of the trial."""

STUDY = "BIGOPT_STUDY"
"""Name of the study."""

WORKER = "BIGOPT_WORKER"
"""The process that waits for the job, where a launcher runs it in another one."""

TEST = "BIGOPT_TEST"
"""Set where the job reads the test split although it belongs to a sweep: the winner."""
