"""A study as samplers should see it: a configuration that is paused counts as stopped with its last value."""

from __future__ import annotations

import copy
from collections.abc import Container

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from bigopt.search.configurations import PAUSED


class SeenStudy(Study):
    """The same study; a model-based sampler would learn nothing from trials that run."""

    @classmethod
    def of(cls, study: Study) -> SeenStudy:
        """The same study, seen so."""
        return cls(study.study_name, study._storage, study.sampler, study.pruner)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = [_seen(trial) for trial in super()._get_trials(deepcopy, None, use_cache)]
        return [trial for trial in trials if states is None or trial.state in states]


def _seen(trial: FrozenTrial) -> FrozenTrial:
    if trial.state is not TrialState.RUNNING or not trial.user_attrs.get(PAUSED) or trial.last_step is None:
        return trial
    seen = copy.copy(trial)
    seen.state = TrialState.PRUNED
    seen.values = [trial.intermediate_values[trial.last_step]]
    return seen
