"""How sure a drop is: paired bootstrap intervals over the samples of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.task import Task

    Array = NDArray[np.float64]

_SPLITS = ("val", "test")
_CELLS = 4_000_000  # bootstrap weights held at once, and drawn in all where many replicates are not needed


@dataclass(frozen=True)
class _Metric:
    """A metric as a function of means over samples, so that resampling is one matrix product.

    Attributes:
        features: ``(logits, y)`` → per-sample columns ``(N, C)``, dense or sparse.
        value: means ``(B, C)`` → metric ``(B,)``.
    """

    features: Callable[[Tensor, Tensor], Any]
    value: Callable[[Array], Array]


def paired_interval(
    task: Task,
    monitor: Monitor,
    logits_a: Tensor | None,
    logits_b: Tensor | None,
    y: Tensor,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of how much worse ``b`` is than ``a`` on the same samples.

    Both models are judged on the same resampled rows, so what they share cancels (Efron and Tibshirani, 1993).
    Equal rows are drawn together as one multinomial count, which leaves the distribution exactly as it is: for
    accuracy four counts stand for the whole split.

    Args:
        task: classification or regression.
        monitor: metric (``val/accuracy``, ``test/loss``, …) and its better direction.
        logits_a: reference outputs ``(N, K)`` or ``(N, T)``.
        logits_b: outputs of the model that is judged, same shape.
        y: labels ``(N,)`` or targets ``(N, T)``.
        level: probability that the interval should cover the true drop.
        seed: the interval is a function of its arguments.

    Returns:
        ``(low, high)`` of the drop (positive: worse); None where outputs are missing, or the metric is not one of
        this split's predictions (label-free monitors, bytes, latency).
    """
    import numpy as np

    metric = _metric(task, monitor.metric)
    if metric is None or logits_a is None or logits_b is None or len(y) == 0:
        return None
    a, b = (metric.features(logits.detach().cpu(), y.detach().cpu()) for logits in (logits_a, logits_b))
    a, b, counts = _grouped(a, b)
    sign = 1.0 if monitor.mode == "max" else -1.0
    n, groups = int(counts.sum()), len(counts)
    rng = np.random.default_rng(seed)
    drops: list[Array] = []
    left = min(10_000, max(1_000, _CELLS // groups))
    while left > 0:
        size = min(left, max(1, _CELLS // groups))
        weights = rng.multinomial(n, counts / n, size=size) / n
        with np.errstate(divide="ignore", invalid="ignore"):
            drops.append(sign * (metric.value(weights @ a) - metric.value(weights @ b)))
        left -= size
    drop = np.concatenate(drops)
    finite = drop[np.isfinite(drop)]
    if 2 * len(finite) < len(drop):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resolvable(interval: tuple[float, float] | None) -> bool | None:
    """Whether the split can tell the drop from none: its interval leaves out 0. None without an interval."""
    return None if interval is None else not interval[0] <= 0.0 <= interval[1]


def _grouped(a: Any, b: Any) -> tuple[Any, Any, Array]:
    """Features of the distinct rows, and how often each occurs; sparse features stay as they are."""
    import numpy as np

    if not isinstance(a, np.ndarray):
        return a, b, np.ones(a.shape[0])
    rows, counts = np.unique(np.concatenate([a, b], axis=1), axis=0, return_counts=True)
    return rows[:, : a.shape[1]], rows[:, a.shape[1] :], counts.astype(np.float64)


def _metric(task: Task, name: str) -> _Metric | None:
    split, _, metric = name.partition("/")
    if split not in _SPLITS:
        return None
    if task.name == "classification":
        known = {
            "accuracy": _Metric(_correct, _mean),
            "loss": _Metric(_cross_entropy, _mean),
            "macro_f1": _Metric(lambda logits, y: _confusion(logits, y, task.num_classes), _f1),
        }
    else:
        known = {
            "loss": _Metric(_squared, _mean),
            "mse": _Metric(_squared, _mean),
            "rmse": _Metric(_squared, lambda means: _mean(means) ** 0.5),
            "mae": _Metric(_absolute, _mean),
            "r2": _Metric(_squared_and_moments, _r2),
        }
    return known.get(metric)


def _mean(means: Array) -> Array:
    return means[:, 0]


def _correct(logits: Tensor, y: Tensor) -> Array:
    hits: Array = (logits.float().argmax(1) == y).double().numpy()
    return hits[:, None]


def _cross_entropy(logits: Tensor, y: Tensor) -> Array:
    from torch.nn.functional import cross_entropy

    losses: Array = cross_entropy(logits.float(), y, reduction="none").double().numpy()
    return losses[:, None]


def _errors(logits: Tensor, y: Tensor) -> Array:
    errors: Array = (logits.double() - y.reshape(logits.shape).double()).numpy()
    return errors.reshape(len(y), -1)


def _squared(logits: Tensor, y: Tensor) -> Array:
    means: Array = (_errors(logits, y) ** 2).mean(1)
    return means[:, None]


def _absolute(logits: Tensor, y: Tensor) -> Array:
    means: Array = abs(_errors(logits, y)).mean(1)
    return means[:, None]


def _squared_and_moments(logits: Tensor, y: Tensor) -> Array:
    """Squared error, then every target and its square; centred, so that their difference keeps its digits."""
    import numpy as np

    target = y.reshape(logits.shape).double().numpy().reshape(len(y), -1)
    target = target - target.mean(0)
    return np.concatenate([_squared(logits, y), target, target**2], axis=1)


def _r2(means: Array) -> Array:
    targets = (means.shape[1] - 1) // 2
    spread: Array = (means[:, 1 + targets :] - means[:, 1 : 1 + targets] ** 2).mean(1)
    return 1.0 - means[:, 0] / spread


def _confusion(logits: Tensor, y: Tensor, classes: int) -> Any:
    """Per sample and class: hit, predicted, labelled, side by side ``(N, 3K)``; sparse, as K may be large."""
    import numpy as np
    from scipy import sparse

    predicted, labels = logits.float().argmax(1).numpy(), y.numpy()
    rows = np.arange(len(labels))
    hits = predicted == labels
    row = np.concatenate([rows[hits], rows, rows])
    column = np.concatenate([labels[hits], classes + predicted, 2 * classes + labels])
    return sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(labels), 3 * classes))


def _f1(means: Array) -> Array:
    """Unweighted mean of the F1 of the classes that occur, as ``Task.metrics`` has it."""
    import numpy as np

    classes = means.shape[1] // 3
    hit, total = means[:, :classes], means[:, classes : 2 * classes] + means[:, 2 * classes :]
    f1 = np.divide(2 * hit, total, out=np.zeros_like(hit), where=total > 0)
    return np.asarray(f1.sum(1) / (total > 0).sum(1))


def student(count: int, level: float = 0.95) -> float:
    """Student's t by which the standard error of the mean of so many values is multiplied for an interval."""
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, count - 1))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values, such as one a seed, and half the width of its interval (Student 1908).

    The half width of a single value is NaN.
    """
    from statistics import fmean, stdev

    if len(values) < 2:
        return fmean(values), float("nan")
    return fmean(values), student(len(values), level) * stdev(values) / len(values) ** 0.5


def shown_interval(values: Sequence[float], digits: int = 1, *, scale: float = 1.0, sign: bool = False) -> str:
    """Mean and half the width of its interval as ``1.2 ± 0.3``; the mean alone where there is one value.

    Args:
        values: independent, such as one a seed.
        digits: behind the point.
        scale: factor on the values, such as 100 for points.
        sign: also show a plus.
    """
    mean, half = mean_interval([scale * value for value in values])
    text = f"{mean:{'+' if sign else ''}.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {half:.{digits}f}"
