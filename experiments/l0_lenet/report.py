"""The table and the picture of the sparse LeNets, and what counts as a unit of a sparse net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigopt.report.interval import mean_interval, shown_interval

HERE = Path(__file__).parent

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "L0, units, penalty 3": ("l0", {"inputs": "true", "penalty": 3.0}),
    "L0, units, penalty 10": ("l0", {"inputs": "true", "penalty": 10.0}),
    "group lasso, penalty 0.5": ("structured_sparsity", {"penalty": 0.5}),
    "group lasso, penalty 1": ("structured_sparsity", {"penalty": 1.0}),
    "Gaussian, penalty 3": ("gaussian_constraint", {"penalty": 3.0}),
    "Gaussian, penalty 10": ("gaussian_constraint", {"penalty": 10.0}),
    "variational dropout, weight 0.3": ("variational_dropout", {"kl_weight": 0.3}),
    "variational dropout, weight 0.1": ("variational_dropout", {"kl_weight": 0.1}),
    "L0, weights, penalty 300": ("l0", {"gates": "weights", "penalty": 300.0}),
    "L0, weights, penalty 100": ("l0", {"gates": "weights", "penalty": 100.0}),
    "L0 ball, units, 10 %": ("l0", {"inputs": "true", "constraint": "l0_ball", "keep": 0.1}),
    "L0 ball, units, 3 %": ("l0", {"inputs": "true", "constraint": "l0_ball", "keep": 0.03}),
}
"""What is compared: the plugin and its settings, by the name in the table. The first cell also runs the control."""
TITLES = {"mlp": "LeNet-300-100", "lenet5": "LeNet-5-Caffe"}
LAYERS = {
    "mlp": ("net.body.fc1", "net.body.fc2", "net.head"),
    "lenet5": ("net.conv1", "net.conv2", "net.fc1", "net.fc2"),
}


def architecture(path: Path) -> dict[str, Any]:
    """Units and weights of a saved net that still matter.

    A unit is counted if a weight that is not zero leads to it from a counted unit, and one leads on to a counted unit;
    a unit without inputs is a constant, which the next biases can take over. Of a net on images the units are the
    pixels, of LeNet-5 the kernels of both convolutions, the positions that the first linear layer reads, and its
    neurons, as in Louizos et al. (2018), table 1.

    Args:
        path: the ``model.safetensors`` of a run.

    Returns:
        ``architecture`` as the papers write it, ``left`` weights between counted units, ``weights`` in the file.
    """
    from safetensors.torch import load_file

    saved = load_file(path)
    names = next(names for names in LAYERS.values() if f"{names[0]}.weight" in saved)
    links = [(saved[f"{name}.weight"].flatten(2) != 0) if saved[f"{name}.weight"].ndim > 2 else
             (saved[f"{name}.weight"] != 0)[..., None] for name in names]  # fmt: skip
    counts = [link.sum(2) for link in links]  # (out, in)
    spread = [1] * len(counts)  # positions of each unit that the next layer reads one by one
    for at in range(1, len(counts)):
        spread[at] = counts[at].shape[1] // counts[at - 1].shape[0]
    into = [count.any(0) for count in counts]
    out = [count.any(1) for count in counts]
    out[-1][:] = True
    while True:
        before = sum(int(mask.sum()) for mask in [*into, *out])
        for at, count in enumerate(counts):
            into[at] = into[at] & count[out[at]].any(0)
            if at:
                into[at] = into[at] & out[at - 1].repeat_interleave(spread[at])
                out[at - 1] = out[at - 1] & into[at].reshape(-1, spread[at]).any(1)
            if at < len(counts) - 1:
                out[at] = out[at] & count[:, into[at]].any(1)
        if sum(int(mask.sum()) for mask in [*into, *out]) == before:
            break
    left = sum(int(count[o][:, i].sum()) for count, o, i in zip(counts, out, into, strict=True))
    widths = [int(mask.sum()) for mask in out[:-1]]
    if links[0].shape[2] == 1:
        widths.insert(0, int(into[0].sum()))
    for at in range(1, len(counts)):
        if spread[at] > 1:
            widths.insert(at, int(into[at].sum()))
    layers = [int(count.sum()) for count in counts]
    return {"architecture": "-".join(map(str, widths)), "left": left, "nonzero_by_layer": layers}


DENSE = {"mlp": ("784-300-100", 266_200), "lenet5": ("20-50-800-500", 430_500)}
"""Architecture and weights of the dense nets on images of 28×28 pixels."""


def name_of(what: str, dataset: str) -> str:
    """A file's name, without the ending; Fashion-MNIST's files have the plain one."""
    return what if dataset == "fashion_mnist" else f"{what}_{dataset}"


def write(results: dict[str, Any], dataset: str) -> None:
    """Table and picture of these results."""
    (HERE / f"{name_of('table', dataset)}.md").write_text("\n".join(table(results)) + "\n")
    picture(results, HERE / f"{name_of('l0_lenet', dataset)}.png")


def cells(results: dict[str, Any], model: str, cell: str) -> dict[str, Any]:
    """The results of one line of the table, by seed."""
    ones = {key.rsplit("/", 1)[1]: value for key, value in results.items() if key.startswith(f"{model}/{cell}/")}
    return dict(sorted(ones.items()))


def table(results: dict[str, Any]) -> list[str]:
    """One part for each net, one line for each method and penalty."""
    lines = []
    for model, title in TITLES.items():
        first = cells(results, model, next(iter(CELLS)))
        if not first:
            continue
        lines += [f"## {title}", ""]
        lines += ["| method | seeds | architectures | weights left, % | times fewer | test error, % | against control, "
                  "points | MACs, % | file, % | zipped, % |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        dense, total = DENSE[model]
        control = {seed: one["error"]["control"] for seed, one in first.items()}
        base = {seed: one["error"]["baseline"] for seed, one in first.items()}
        for name, errors in (("dense, first stage only", base), ("dense, control", control)):
            by = [errors[seed] - control[seed] for seed in errors] if name.endswith("only") else []
            lines.append(f"| {name} | {len(errors)} | {dense} | 100 | 1 | {shown_interval([*errors.values()], 2)} | "
                         f"{shown_interval(by, 2, sign=True) if by else ''} | 100 | 100 | 100 |")  # fmt: skip
        for cell in CELLS:
            ones = {seed: one for seed, one in cells(results, model, cell).items() if seed in control}
            if not ones:
                continue
            share = [100 * one["left"] / total for one in ones.values()]
            mean = sum(share) / len(share)
            ratios = [
                f"{sum(100 * one[key] / one['dense'][key] for one in ones.values()) / len(ones):.0f}"
                for key in ("macs", "bytes", "bytes_zip")
            ]
            columns = [
                cell,
                str(len(ones)),
                ", ".join(one["architecture"] for one in ones.values()),
                shown_interval(share, 1 if mean > 2 else 2),
                f"{100 / mean:.0f}" if mean < 10 else f"{100 / mean:.1f}",
                shown_interval([one["error"]["final"] for one in ones.values()], 2),
                shown_interval([one["error"]["final"] - control[seed] for seed, one in ones.items()], 2, sign=True),
                *ratios,
            ]
            lines.append("| " + " | ".join(columns) + " |")
        lines.append("")
    return lines[:-1]


def picture(results: dict[str, Any], path: Path) -> None:
    """Test error against the share of weights left, one panel for each net."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from bigopt.report.theme import CONTROL, INK, RC, SERIES, tidy

    families: dict[str, list[str]] = {}
    for cell in CELLS:
        families.setdefault(cell.rsplit(", ", 1)[0], []).append(cell)
    models = [model for model in TITLES if cells(results, model, next(iter(CELLS)))]
    with pyplot.rc_context(RC):
        figure, axes = pyplot.subplots(1, len(models), figsize=(5.6 * len(models), 4.4), squeeze=False)
        for axis, model in zip(axes[0], models, strict=True):
            first = cells(results, model, next(iter(CELLS))).values()
            for name, color, style in (("baseline", CONTROL, ":"), ("control", INK, "--")):
                mean, half = mean_interval([one["error"][name] for one in first])
                label = {"baseline": "dense, first stage only", "control": "dense, control"}[name]
                axis.axhline(mean, color=color, linestyle=style, linewidth=1.2, label=label)
                if name == "control" and half == half:
                    axis.axhspan(mean - half, mean + half, color=color, alpha=0.07, linewidth=0)
            for place, (family, members) in enumerate(families.items()):
                points = []
                for cell in members:
                    ones = cells(results, model, cell).values()
                    if ones:
                        x = mean_interval([100 * one["left"] / DENSE[model][1] for one in ones])
                        points.append((*x, *mean_interval([one["error"]["final"] for one in ones])))
                if points:
                    x, dx, y, dy = zip(*sorted(points), strict=True)
                    clipped = [[min(d, 0.9 * v) for v, d in zip(x, dx, strict=True)], dx]
                    axis.errorbar(x, y, xerr=clipped, yerr=dy, marker="osD^vP"[place], markersize=5,
                                  color=SERIES[place], linewidth=1.2, elinewidth=0.8, label=family)  # fmt: skip
            axis.set(xscale="log", xlabel="weights left, % of the dense net's", title=TITLES[model])
            axis.set_ylabel("test error, %")
            axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
            tidy(axis)
        axes[0][-1].legend(fontsize=7.5)
        figure.tight_layout()
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
