"""What the configuration says about training, measuring and tracking; each class is the schema of a config group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.patterns import fits


@dataclass(frozen=True)
class Trainer:
    """How models are trained.

    Args:
        max_epochs: passes over the training split in the first stage.
        batch_size: rows per optimizer step (before accumulation), over all ranks; ``auto`` finds the smallest power of
            two whose throughput comes close to the best that fits in memory.
        eval_batch_size: rows per forward pass where nothing is trained.
        precision: ``auto`` takes bfloat16 autocast where the hardware has it and it costs no accuracy.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: number of processes; more than one means DDP.
        threads: CPU threads per process; null leaves PyTorch's choice.
        channels_last: memory format of convolutional nets; ``auto`` where it pays.
        compile: ``auto`` compiles only where the training is long enough to pay for it.
        deterministic: refuse algorithms that do not repeat bit for bit.
        gradient_clip: largest gradient norm; null for none.
        accumulate: optimizer step every so many batches.
        early_stopping: epochs without improvement after which a fit ends; null for none.
        ema: decay of the exponential moving average that is evaluated and kept; null for none.
        label_smoothing: share of the label spread over all classes in the training loss.
        checkpoint_seconds: seconds between checkpoints inside a fit (one is also written when asked to stop).
        workers: processes that load data which do not fit in memory.
    """

    max_epochs: int = 20
    batch_size: int | Literal["auto"] = 128
    eval_batch_size: int = 1024
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    threads: int | None = None
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    deterministic: bool = False
    gradient_clip: float | None = None
    accumulate: int = 1
    early_stopping: int | None = None
    ema: float | None = None
    label_smoothing: float = 0.0
    checkpoint_seconds: float = 60.0
    workers: int = 2

    @property
    def rows(self) -> int:
        """``batch_size`` as a number.

        Raises:
            RequestError: it is still to be found.
        """
        if isinstance(self.batch_size, str):
            raise RequestError("trainer.batch_size: auto is found in the first fit; nothing can ask for it before")
        return self.batch_size


@dataclass(frozen=True)
class Optimizer:
    """Which optimizer, by its name in ``torch.optim`` in lower case.

    Args:
        name: optimizer.
        lr: peak learning rate; ``auto`` takes it from a range test before the first fit (Smith 2017), see :attr:`rate`.
        weight_decay: decoupled or L2 decay, as the optimizer defines it; not applied to norms and biases.
        momentum: for ``sgd`` and ``rmsprop``.
        nesterov: for ``sgd``.
        betas: for the Adam family.
    """

    name: Literal["adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "adagrad"] = "adamw"
    lr: float | Literal["auto"] = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)

    @property
    def rate(self) -> float:
        """The peak learning rate as a number.

        Raises:
            RequestError: it is still to be found.
        """
        if isinstance(self.lr, str):
            raise RequestError("optimizer.lr: auto is found in the first fit; nothing can ask for it before")
        return self.lr


@dataclass(frozen=True)
class Scheduler:
    """How the learning rate goes down over a fit.

    Args:
        name: shape of the decay.
        warmup: share of the fit's steps over which the rate first rises linearly.
        final: rate at the end as a share of the peak (cosine, polynomial, linear).
        gamma: factor per epoch (exponential, multiplicative) or per step of ``step_epochs`` (step), or at a plateau.
        step_epochs: epochs between two factors (step).
        patience: epochs without improvement before a factor (plateau).
        power: exponent (polynomial).
    """

    name: Literal[
        "constant", "cosine", "linear", "polynomial", "exponential", "multiplicative", "step", "one_cycle", "plateau"
    ] = "cosine"
    warmup: float = 0.0
    final: float = 0.0
    gamma: float = 0.1
    step_epochs: int = 10
    patience: int = 3
    power: float = 2.0


@dataclass(frozen=True)
class Recover:
    """Training after a compression step.

    Args:
        epochs: passes over the training split; null leaves it to the step (a quarter of the first stage's, at
            least 1, unless the method says otherwise).
        lr: peak learning rate as a share of ``optimizer.lr``; null leaves it to the step (1.0 after units were
            removed, 0.3 for most others).
        teacher: ``baseline`` distils from the dense model; null uses labels only, which was better where the model had
            been trained briefly and recovered briefly (experiments/peers_compression).
        temperature: of the distillation.
        alpha: weight of the distillation term; the task loss has ``1 - alpha``.
    """

    epochs: int | None = None
    lr: float | None = None
    teacher: Literal["baseline"] | None = None
    temperature: float = 2.0
    alpha: float = 0.7


@dataclass(frozen=True)
class Schedule:
    """How a step with a strength gets there.

    Args:
        name: ``one_shot`` at once; ``iterative`` in equal rounds, recovering after each; ``gradual`` along the cubic
            of Zhu and Gupta (2017) during the recovery.
        rounds: number of rounds (iterative, gradual).
    """

    name: Literal["one_shot", "iterative", "gradual"] = "one_shot"
    rounds: int = 5


@dataclass(frozen=True)
class StepOptions:
    """Options that every compression step has; they belong to the driver and are reserved argument names.

    Args:
        plugin: the plugin behind this step; null means the step's own name (an alias names it).
        recover: training after the step.
        schedule: how a step with a strength gets there.
        max_drop: largest allowed drop of the objective on validation (in the metric's own unit); the strength is then
            found by bisection. Null for none.
        ignore: name patterns of modules that are left alone, such as ``stem`` or ``stages.2.*``.
        strict: fail where a layer cannot be handled, instead of naming it and going on.
        sensitivity: first try every layer at every strength on its own, without training; the drops go to the table
            and the picture ``sensitivity_<step>``.
    """

    plugin: str | None = None
    recover: Recover = field(default_factory=Recover)
    schedule: Schedule = field(default_factory=Schedule)
    max_drop: float | None = None
    ignore: tuple[str, ...] = ()
    strict: bool = False
    sensitivity: bool = False

    def ignores(self, name: str) -> bool:
        """Whether the step was told to leave this module alone."""
        return fits(name, self.ignore)


@dataclass(frozen=True)
class Budget:
    """Limits that the final model is judged by; null means no limit.

    Args:
        max_drop: drop of the first objective on validation, in the metric's own unit.
        max_bytes: size of the ONNX file.
        max_latency_ms: median latency at batch 1, milliseconds.
        max_macs: multiply-accumulate operations of one sample.
    """

    max_drop: float | None = None
    max_bytes: int | None = None
    max_latency_ms: float | None = None
    max_macs: int | None = None


@dataclass(frozen=True)
class Measure:
    """How size and speed are measured.

    Args:
        latency: whether latency is measured at all.
        large_batch: the second batch size.
        threads: ONNX Runtime's threads.
        repeats: timed rounds; each runs every model once, in turn.
        warmup: untimed rounds before.
        export: whether files are exported; without, metrics come from the model in memory.
    """

    latency: bool = True
    large_batch: int = 256
    threads: int = 1
    repeats: int = 50
    warmup: int = 5
    export: bool = True


@dataclass(frozen=True)
class Tracking:
    """Where runs are tracked.

    Args:
        name: ``mlflow``, or ``none``.
        uri: MLflow tracking URI; null means ``sqlite:///mlflow.db`` in the working directory.
        experiment: MLflow experiment.
        artifacts: whether files are uploaded.
        log_model: whether the ONNX model is logged with its signature.
    """

    name: Literal["mlflow", "none"] = "mlflow"
    uri: str | None = None
    experiment: str = "bigopt"
    artifacts: bool = True
    log_model: bool = True


@dataclass(frozen=True)
class Evaluate:
    """What is evaluated beside the objective.

    Args:
        name: ``standard``, or ``robustness`` (corruptions, worst class, calibration, generalisation gap per stage).
        severities: strengths of the corruptions.
    """

    name: Literal["standard", "robustness"] = "standard"
    severities: tuple[int, ...] = (1, 3, 5)


@dataclass(frozen=True)
class Settings:
    """All of the above, as one run uses them."""

    trainer: Trainer = field(default_factory=Trainer)
    optimizer: Optimizer = field(default_factory=Optimizer)
    scheduler: Scheduler = field(default_factory=Scheduler)
    budget: Budget = field(default_factory=Budget)
    measure: Measure = field(default_factory=Measure)
    evaluate: Evaluate = field(default_factory=Evaluate)
    tracking: Tracking = field(default_factory=Tracking)
    objective: dict[str, str] = field(default_factory=lambda: {"val/accuracy": "max"})
    control: bool = False
    cache: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
