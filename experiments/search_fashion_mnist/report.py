"""The table and the picture of the replays."""

from __future__ import annotations

import json
from typing import Any

import numpy
from grids import EPOCHS, HERE, path
from replay import FULL_TRAININGS, METHODS, Table, read, replayed

from bigopt.store import write_atomic


def report() -> None:
    """Writes ``results.json``, ``table.md`` and ``search.png`` from the replays."""
    kept, results = {}, {}
    for dataset in EPOCHS:
        if not path(dataset).is_file():
            continue
        table = read(dataset)
        found = replayed(dataset, len(table.curves))["methods"]
        if len(found.get("random", ())) > 0:
            kept[dataset], results[dataset] = found, summary(table, found)
    write_atomic(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    write_atomic(HERE / "table.md", "\n".join(line for name in results for line in lines(name, results[name])).encode())
    picture(kept, results)


def summary(table: Table, found: dict[str, Any]) -> dict[str, Any]:
    """Figures of every method: epochs and seconds until the target, at the budget's end where it is never reached.

    The target is the median of what random search has found when its budget is spent.
    """
    target = float(numpy.median([run["steps"][-1][2] for run in found["random"]]))
    top = max(max(values) for values, _ in table.curves.values())
    methods = {}
    for name in METHODS:
        if name not in found:
            continue
        runs = found[name]
        hits = [next((step for step in run["steps"] if step[2] >= target), None) for run in runs]
        epochs = [run["epochs"] if hit is None else hit[0] for run, hit in zip(runs, hits, strict=True)]
        seconds = [run["seconds"] if hit is None else hit[1] for run, hit in zip(runs, hits, strict=True)]
        low, middle, high = numpy.percentile(epochs, [25, 50, 75])
        methods[name] = {
            "replays": len(runs),
            "epochs": float(middle),
            "epochs_quartiles": [float(low), float(high)],
            "mean_epochs": float(numpy.mean(epochs)),
            "seconds": float(numpy.median(seconds)),
            "never": sum(hit is None for hit in hits),
            "regret": max(0.0, round(float(top - numpy.mean([run["steps"][-1][2] for run in runs])), 6)),
        }
    whole = FULL_TRAININGS * table.full
    return {
        "configurations": len(table.curves),
        "full": table.full,
        "budget": whole,
        "target": target,
        "top": top,
        "better": sum(max(values) >= target for values, _ in table.curves.values()),
        "methods": methods,
    }


def lines(dataset: str, result: dict[str, Any]) -> list[str]:
    """A table in Markdown."""
    random = result["methods"]["random"]
    out = [
        f"**{dataset}**: {result['configurations']} recorded configurations of {result['full']} epochs; budget "
        f"{result['budget']} epochs a search; target {result['target']:.4f} (the best there is: {result['top']:.4f}; "
        f"{result['better']} configurations reach the target).",
        "",
        "| tuner | epochs to the target, median (quartiles) | share of random's | mean | seconds of training | "
        "never reached | regret at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in result["methods"].items():
        low, high = each["epochs_quartiles"]
        out.append(
            f"| {name} | {each['epochs']:.0f} ({low:.0f}–{high:.0f}) | {each['epochs'] / random['epochs']:.2f} | "
            f"{each['mean_epochs']:.0f} | {each['seconds']:.1f} | {each['never']} of {each['replays']} | "
            f"{each['regret']:.4f} |"
        )
    return [*out, ""]


def picture(kept: dict[str, Any], results: dict[str, Any]) -> None:
    """Mean distance to the best of the table over the epochs spent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(kept), figsize=(6.5 * len(kept), 4.5), squeeze=False)
    colors = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for axis, (dataset, found) in zip(axes[0], kept.items(), strict=True):
        result = results[dataset]
        grid = numpy.arange(1, result["budget"] + 1)
        for place, name in enumerate(METHODS):
            if name not in found:
                continue
            regret = numpy.zeros(len(grid))
            for run in found[name]:
                at = numpy.searchsorted([step[0] for step in run["steps"]], grid, side="right") - 1
                regret += result["top"] - numpy.array([step[2] for step in run["steps"]])[at]
            style = "--" if name.startswith(("random", "quasi")) else "-"
            axis.plot(grid, regret / len(found[name]), style, label=name, color=colors[place], linewidth=1.4)
        axis.axhline(result["top"] - result["target"], color="0.6", linewidth=0.8)
        axis.set(xlabel="epochs trained", ylabel="validation accuracy below the best", title=dataset)
        axis.set(xscale="log", yscale="log", xlim=(result["full"], result["budget"]))
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(HERE / "search.png", dpi=120)
