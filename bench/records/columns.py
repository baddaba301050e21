"""The rows that a run leaves: SummaryRow, which is the schema of summary.csv, and those of the tables in its folder."""

from __future__ import annotations

from dataclasses import dataclass

from bench.system.csvfile import Columns, later_column

STATUS = ("ok", "failed", "diverged", "oom", "leaking", "interrupted")


MODES = {"plain": "acc", "transductive": "acc_transductive"}  # test mode -> column of test_tasks.csv


@dataclass(frozen=True, kw_only=True)
class SummaryRow(Columns):
    """One run; None where a value is not known or does not exist (inner_lr of a method without inner loop).

    Accuracies are fractions, ``_ci95`` half-widths of 95% intervals over tasks, ``_s`` seconds, ``_ms``
    milliseconds, ``_mib`` MiB; ``started_at`` is ISO 8601, so that text order is time order.
    """

    algo: str
    dataset: str
    protocol: str
    n_way: int
    k_shot: int
    k_query: int
    seed: int
    backbone: str
    device: str
    device_name: str | None = None
    meta_batch: int | None = None
    meta_steps: int | None = None
    inner_steps: int | None = None
    inner_lr: float | None = None
    inner_optimizer: str | None = None
    eval_inner_steps: int | None = None
    meta_optimizer: str | None = None
    meta_lr: float | None = None
    tasks_seen: int | None = None
    images_seen: int | None = None
    stream_sha256: str | None = None
    test_tasks: int | None = None
    test_acc: float | None = None
    test_acc_ci95: float | None = None
    test_acc_transductive: float | None = None
    test_acc_transductive_ci95: float | None = None
    train_s: float | None = None
    eval_s: float | None = None
    setup_s: float | None = None
    step_ms_median: float | None = None
    step_ms_p95: float | None = None
    tasks_per_s: float | None = None
    peak_mem_mib: float | None = None
    peak_mem_reserved_mib: float | None = None
    status: str
    error: str | None = None
    run_id: str
    torch_version: str | None = None
    git_commit: str | None = None
    started_at: str
    # SPEC 7 ends here; what follows may grow
    eval_k_query: int | None = None
    train_rotation: str | None = None
    test_rotation: str | None = None
    acc_before_adaptation: float | None = None
    threads: int | None = None
    data_sha256: str | None = None
    data_pipeline: str | None = None
    task_chunk: int | None = None
    resumed: int | None = None
    precision: str | None = None
    step_mode: str | None = None
    oom_retries: int | None = None
    kernels: str | None = None
    measure: str | None = later_column()
    test_error: float | None = later_column()
    test_error_ci95: float | None = later_column()
    test_error_transductive: float | None = later_column()
    test_error_transductive_ci95: float | None = later_column()
    error_before_adaptation: float | None = later_column()
    train_k_shot: int | None = later_column()
    beside: int | None = later_column()
    version: str | None = later_column()
    peak_tensor_mib: float | None = later_column()
    adapt_ms: float | None = later_column()
    code: str | None = later_column()
    data_code: str | None = later_column()
    results: int | None = later_column()
    load: float | None = later_column()
    tuning_trials: int | None = later_column()
    tuning_steps: int | None = later_column()
    tuning_s: float | None = later_column()
    tuning_trial_steps: int | None = later_column()
    data_options: str | None = later_column()
    test_dataset: str | None = later_column()
    test_n_way: int | None = later_column()
    test_k_shot: int | None = later_column()
    test_corruption: str | None = later_column()
    test_data_sha256: str | None = later_column()
    test_data_code: str | None = later_column()
    host: str | None = later_column()

    @property
    def setting(self) -> str:
        """Return the episode in words, and what is otherwise at test."""
        tested = shift_words(self.test_dataset, self.test_n_way, self.test_k_shot, self.test_corruption)
        return f"{self.n_way}-way {self.k_shot}-shot{tested}"

    def __post_init__(self) -> None:
        if self.status not in STATUS:
            raise ValueError(f"status is {self.status!r}; accepted: {', '.join(STATUS)}")


@dataclass(frozen=True)
class CurvePoint(Columns):
    """Validation part-way through a run, after ``meta_step`` steps and ``train_s`` seconds.

    ``query_loss`` is that of the training tasks since the last point, for images in nats.
    """

    meta_step: int
    tasks_seen: int
    train_s: float
    val_acc: float | None
    val_acc_ci95: float | None
    query_loss: float | None
    val_error: float | None = later_column()
    val_error_ci95: float | None = later_column()


@dataclass(frozen=True)
class TestTask(Columns):
    """Accuracies or errors of one test task, NaN if not measured; ``task`` is its place in the test stream."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    task: int
    acc: float
    acc_transductive: float
    error: float | None = later_column()
    error_transductive: float | None = later_column()


@dataclass(frozen=True)
class AdaptationPoint(Columns):
    """Mean measure of the first ``tasks`` test tasks after ``step`` inner steps (0: before any) in one of MODES."""

    mode: str
    step: int
    acc: float | None
    acc_ci95: float | None
    tasks: int | None = later_column()
    error: float | None = later_column()
    error_ci95: float | None = later_column()


def measured(kind: str, mean: float, ci95: float, prefix: str = "") -> dict[str, float | None]:
    """Return the columns of a measure, ``kind`` being its Objective's; those of an accuracy are always there."""
    empty = {f"{prefix}acc": None, f"{prefix}acc_ci95": None}
    return {**empty, f"{prefix}{kind}": mean, f"{prefix}{kind}_ci95": ci95}


def shift_words(dataset: str | None, n_way: int | None, k_shot: int | None, corruption: str | None) -> str:
    """Return in words what is otherwise at test than in training, ``" (test: glyphs, 20-way)"``; empty for nothing.

    ``corruption`` is as RunConfig has it, ``noise:3``.
    """
    shape = (f"{n_way}-way" if n_way else None, f"{k_shot}-shot" if k_shot else None)
    parts = ", ".join(part for part in (dataset, *shape, corruption) if part)
    return f" (test: {parts})" if parts else ""
