"""Optuna's own pictures of a study: PNG files, and one page that needs no network."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.search.configurations import VOID
from bigopt.search.plan import Plan
from bigopt.store import write_atomic

if TYPE_CHECKING:
    import optuna

PAGE = "plots.html"
log = logging.getLogger("bigopt.search")


def draw(plan: Plan, study: optuna.Study) -> list[Path]:
    """Draws what can be drawn; returns the files, beside the page ``plots.html``.

    Pictures are history, parameter importance, parallel coordinates, slices, intermediate values, and the Pareto
    front for several objectives.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna import visualization
    from optuna.visualization import matplotlib as pictures

    shown = _counted(plan, study)
    written: list[Path] = []
    figures: list[tuple[str, Any]] = []
    for name, function, arguments in _wanted(plan):
        picture = _attempt(lambda f=function, a=arguments: getattr(pictures, f)(shown, **a), name)  # type: ignore[misc]
        if picture is not None:
            figure = _figure(picture)

            def save(to: Path, figure: Any = figure) -> None:
                figure.savefig(to, dpi=110, bbox_inches="tight")

            written += [path] if (path := _attempt(lambda s=save, n=name: _write(plan, n, s), name)) else []  # type: ignore[misc]
        pyplot.close("all")
        page = _attempt(lambda f=function, a=arguments: getattr(visualization, f)(shown, **a), name)  # type: ignore[misc]
        figures += [(name, page)] if page is not None else []
    if figures:
        write_atomic(plan.folder / PAGE, _page(plan, figures))
    return written


def _wanted(plan: Plan) -> list[tuple[str, str, dict[str, Any]]]:
    names = [monitor.metric for monitor in plan.objectives]
    several = len(names) > 1
    plots: list[tuple[str, str, dict[str, Any]]] = []
    for number, metric in enumerate(names):
        end = f"-{number + 1}" if several else ""
        of: dict[str, Any] = {"target_name": metric}
        if several:
            of["target"] = lambda trial, n=number: trial.values[n]
        plots += [
            (f"history{end}", "plot_optimization_history", of),
            (f"importance{end}", "plot_param_importances", of),
            (f"parallel{end}", "plot_parallel_coordinate", of),
            (f"slice{end}", "plot_slice", of),
        ]
    if several and len(names) <= 3:
        plots.append(("pareto", "plot_pareto_front", {"target_names": names}))
    if not several and plan.tuner.stops_early:
        plots.append(("intermediate", "plot_intermediate_values", {}))
    return plots


def _counted(plan: Plan, study: optuna.Study) -> optuna.Study:
    """A copy in memory of the trials that count, so that pictures hold no void ones."""
    import optuna

    copy = optuna.create_study(
        directions=plan.directions, sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner()
    )
    ended = [t for t in study.get_trials(deepcopy=False) if VOID not in t.user_attrs and t.state.is_finished()]
    copy.add_trials(ended)
    return copy


def _attempt(work: Callable[[], Any], name: str) -> Any:
    """A picture that cannot be drawn (too few trials) is left out."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("matplotlib.category").setLevel(logging.WARNING)  # tells of choices that look like numbers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except Exception as error:
        log.debug("%s: %s", name, error)
        return None
    finally:
        optuna.logging.set_verbosity(before)


def _write(plan: Plan, name: str, save: Callable[[Path], None]) -> Path:
    return write_atomic(plan.folder / "plots" / f"{name}.png", save)


def _figure(picture: Any) -> Any:
    while not hasattr(picture, "savefig"):
        picture = picture.figure if hasattr(picture, "figure") else picture.flat[0]
    return picture


def _page(plan: Plan, figures: Sequence[tuple[str, Any]]) -> str:
    from html import escape

    parts = [
        figure.to_html(full_html=False, include_plotlyjs=("inline" if number == 0 else False))
        for number, (_, figure) in enumerate(figures)
    ]
    title = escape(f"bigopt sweep {plan.study}")
    return f'<!doctype html><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>' + "\n".join(parts) + "\n"
