"""Opens a study, and refuses to go on with one that searched something else."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bigopt.search.configurations import VOID, configurations, tries
from bigopt.search.plan import Plan
from bigopt.search.storage import Storage
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

SPACE = "bigopt:space"
FIXED = "bigopt:fixed"
CONTEXT = "bigopt:context"
ENQUEUED = "bigopt:enqueued"
_ABSENT = "nothing"


def quiet() -> None:
    """Silences what Optuna says of every trial; its warnings about unusual use are about what is done on purpose."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message=".*warn_independent_sampling", category=FutureWarning)
    logging.getLogger("optuna").setLevel(logging.WARNING)


def load(storage: Storage, name: str) -> optuna.Study:
    """A study that is there, with a neutral sampler and no pruner."""
    import optuna

    quiet()
    return optuna.load_study(
        study_name=name,
        storage=storage.open(),
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )


def prepare(plan: Plan) -> optuna.Study:
    """Creates the study, or goes on with it.

    Raises:
        RequestError: the study searched another space, or has more trials than are asked for.
    """
    import optuna

    quiet()
    if plan.storage.path is not None:
        plan.storage.path.parent.mkdir(parents=True, exist_ok=True)
    with plan.storage.turn():
        optuna.create_study(
            study_name=plan.study,
            storage=plan.storage.open(),
            directions=plan.directions,
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        study = load(plan.storage, plan.study)
        attrs = study.user_attrs
        if SPACE in attrs:
            _refuse_changes(plan, study, attrs)
        else:
            study.set_user_attr(FIXED, dict(plan.fixed))
            study.set_user_attr(SPACE, plan.space.described())
        if attrs.get(CONTEXT) != dict(plan.context):
            study.set_user_attr(CONTEXT, dict(plan.context))
        _enqueue(plan, study)
    return study


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One line for each thing that is not as it was."""
    return [
        f"{name}: the study has {before.get(name, _ABSENT)}, got {now.get(name, _ABSENT)}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    ]


def warm_start(plan: Plan, source: optuna.Study) -> int:
    """Copies what another study found out into this one, once; it does not count towards the trials in total.

    Returns:
        the number of trials that fit this space and objective.
    """
    from optuna.trial import TrialState, create_trial

    study = load(plan.storage, plan.study)
    mark = f"warm:{source.study_name}"
    with plan.storage.turn():
        if any(trial.user_attrs.get(VOID) == mark for trial in tries(study)):
            return 0
        if source.directions != study.directions:
            raise RequestError("hydra.sweeper.warm_start: the study optimises in other directions")
        fitting = [t for t in source.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _fits(plan, t)]
        for trial in fitting:
            study.add_trial(
                create_trial(
                    values=trial.values,
                    params=trial.params,
                    distributions={name: plan.space.distributions[name] for name in trial.params},
                    user_attrs={VOID: mark},
                    system_attrs={k: v for k, v in trial.system_attrs.items() if k.startswith("constraints")},
                )
            )
    return len(fitting)


def _fits(plan: Plan, trial: FrozenTrial) -> bool:
    known = plan.space.distributions
    if VOID in trial.user_attrs or not set(trial.params) <= set(known):
        return False
    try:
        inside = all(known[name]._contains(known[name].to_internal_repr(value)) for name, value in trial.params.items())
    except ValueError:
        return False
    return inside and set(plan.space.projected(trial.params)) == set(trial.params)


def _refuse_changes(plan: Plan, study: optuna.Study, attrs: Mapping[str, Any]) -> None:
    lines = differences(attrs.get(SPACE, {}), plan.space.described())
    lines += differences(attrs.get(FIXED, {}), dict(plan.fixed))
    if lines:
        end = "go on with the same space, or give another hydra.sweeper.study_name"
        raise RequestError(
            [*(f"study {plan.study}: {line}" for line in lines[:-1]), f"study {plan.study}: {lines[-1]}; {end}"]
        )
    done = sum(each.started for each in configurations(tries(study)))
    wanted = plan.limits.n_trials
    if wanted is not None and wanted < done:
        raise RequestError(
            f"hydra.sweeper.n_trials: got {wanted}, but the study has {done} trials already, expected at least {done}"
        )


def _enqueue(plan: Plan, study: optuna.Study) -> None:
    """Puts the known points in the queue, each once in a study's life."""
    known: list[dict[str, Any]] = list(study.user_attrs.get(ENQUEUED, []))
    fresh = [dict(point) for point in plan.enqueue if dict(point) not in known]
    for point in fresh:
        study.enqueue_trial(point)
    if fresh:
        study.set_user_attr(ENQUEUED, known + fresh)
