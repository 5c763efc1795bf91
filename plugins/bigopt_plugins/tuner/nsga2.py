"""NSGA-II and NSGA-III: several objectives by evolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.tuner import Tuner, trial_seed
from bigopt_plugins.tuner._samplers import quiet

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def nsga2(
    algorithm: Literal["nsga2", "nsga3"] = "nsga2",
    population: int = 20,
    mutation: float | None = None,
    crossover: float = 0.9,
    swapping: float = 0.5,
    seed: int | None = None,
) -> Tuner:
    """NSGA-II (Deb et al. 2002), or NSGA-III (Deb and Jain 2014) for three and more objectives.

    Args:
        algorithm: which of the two.
        population: configurations of one generation; the first one is random.
        mutation: chance that a parameter is drawn anew; null means one over the number of parameters.
        crossover: chance that a child has two parents.
        swapping: chance that a parameter comes from the second parent.
        seed: of the sampler.

    Raises:
        RequestError: a value out of range.
    """
    from optuna import samplers

    problems = []
    if population < 2:
        problems.append(f"population: got {population}, expected at least 2")
    for name, value in (("mutation", mutation), ("crossover", crossover), ("swapping", swapping)):
        if value is not None and not 0 <= value <= 1:
            problems.append(f"{name}: got {value}, expected a chance in [0, 1]")
    if problems:
        raise RequestError(problems)
    base = 0 if seed is None else seed
    kind = samplers.NSGAIISampler if algorithm == "nsga2" else samplers.NSGAIIISampler

    def sampler(number: int) -> BaseSampler:
        return quiet(
            lambda: kind(
                seed=trial_seed(base, number),
                population_size=population,
                mutation_prob=mutation,
                crossover_prob=crossover,
                swapping_prob=swapping,
            )
        )

    return Tuner(sampler)
