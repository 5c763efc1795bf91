"""What an epoch of feature extraction and of domain adaptation costs beside the plain one: ratios in one run.

    python experiments/transfer_speed/run.py     # about a quarter of an hour on one core; results.json and table.md

Each line is a pair of short runs that differ in one thing, alternating; of each the fastest epoch but the first counts.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import report_of  # noqa: E402

ROUNDS = 5
COMMON = ("model=resnet", "tracking=none", "measure=quick", "augment=none", "trainer.compile=off")
FASHION = (
    "dataset=fashion_mnist",
    "dataset.classes=[5,6,7,8,9]",
    "dataset.limit=4000",
    "trainer.batch_size=128",
    "transfer.source={dataset:{name:fashion_mnist,classes:[0,1,2,3,4],limit:2000}}",
    "transfer.source_epochs=1",
    "trainer.max_epochs=4",
)
DIGITS = ("dataset=digits", "model.width=16", "trainer.batch_size=256", "trainer.max_epochs=4")
SOURCE = "transfer.source=mnist5k"
PAIRS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "extraction, the backbone run or its features kept, width 16": (
        (*FASHION, "model.width=16", "transfer=fine_tuning", "transfer.trainable_blocks=1"),
        (*FASHION, "model.width=16", "transfer=feature_extraction"),
        "at least 20",
    ),
    "extraction, the backbone run or its features kept, width 32": (
        (*FASHION, "transfer=fine_tuning", "transfer.trainable_blocks=1"),
        (*FASHION, "transfer=feature_extraction"),
        "at least 20",
    ),
    **{
        f"{method} beside training on the source alone": (
            (*DIGITS, "transfer=domain_adaptation", SOURCE, f"transfer.method={method}"),
            (*DIGITS, "transfer=domain_adaptation", SOURCE, "transfer.method=source_only"),
            "at most 2.5" if method == "dann" else "",
        )
        for method in ("dann", "cdan", "dan", "deep_coral", "mcc")
    },
}
"""What is compared: words of the numerator's run and of the denominator's, and the target."""


def seconds(words: tuple[str, ...]) -> float:
    """Seconds of the fastest epoch but the first of a run's last fit."""
    report = report_of([*COMMON, *words, f"cache={Path.cwd() / '.bigopt' / 'transfer_speed'}"])
    return float(min(epoch["seconds"] for epoch in report["stages"][0]["history"][-1]["epochs"][1:]))


def main() -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for name, (one, other, _) in PAIRS.items():
        found[name] = [(seconds((*one, f"seed={seed}")), seconds((*other, f"seed={seed}"))) for seed in range(ROUNDS)]
        print(name, found[name], flush=True)
        (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "table.md").write_text(table(found))


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    """Ratios of the pairs of seconds, beside their targets."""
    lines = ["| an epoch of | ratio, median of five | least, most | target |", "|---|---|---|---|"]
    for name, pairs in found.items():
        ratios = [first / second for first, second in pairs]
        spread = f"{min(ratios):.2f}, {max(ratios):.2f}"
        lines.append(f"| {name} | {statistics.median(ratios):.2f}× | {spread} | {PAIRS[name][2]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
