"""Sample, meta-step, time, validate, checkpoint: the life of one run; knows no algorithm by name."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.api import MetaAlgorithm, MetaGrad
from bench.network.kernels import EAGER
from bench.network.model import LOOP, Classifier
from bench.records.columns import CurvePoint, measured
from bench.records.intervals import mean_ci95
from bench.settings.config import RunConfig
from bench.system.load import Others
from bench.tasks.data import AUTO
from bench.tasks.stream import TaskStream
from bench.training.capture import CannotCapture, CudaRecorder, Recorder, Replay, capture
from bench.training.checkpoint import Progress, restore_progress, save_progress
from bench.training.chunks import default_chunk, measured_chunk
from bench.training.clocks import StepTimes, now
from bench.training.contract import Diverged, check_values
from bench.training.evaluate import TRANSDUCTIVE, evaluate
from bench.training.memory import Held, Memory, hand_back, is_out_of_memory, peak_of_tensors, release
from bench.training.metastep import MetaStep

log = logging.getLogger("bench")

CHECKPOINT_EVERY_S = 60.0

T = TypeVar("T")


class Training:
    """One run's training loop.

    Args:
        slow: initial weights, network's and the algorithm's own, on the device; changed in place.
        stream, val_stream: tasks to train on and to validate on.
        checkpoint: where to save and whence to continue.
        recorder: what captures the meta-step; left out, CUDA graphs on a GPU unless the configuration says off.
        card_runs: how many runs share the GPU and its memory.
    Raises:
        Diverged: a loss or gradient became NaN or infinite.
        BenchError: the algorithm breaks its contract.
    """

    def __init__(
        self,
        config: RunConfig,
        algorithm: MetaAlgorithm,
        task_loss: Classifier,
        slow: dict[str, Tensor],
        stream: TaskStream,
        val_stream: TaskStream,
        checkpoint: Path,
        recorder: Recorder | None = None,
        card_runs: int = 1,
    ) -> None:
        self.config, self.algorithm, self.task_loss = config, algorithm, task_loss
        self.stream, self.val_stream, self.checkpoint = stream, val_stream, checkpoint
        self.device = stream.device
        on_gpu = self.device.type == "cuda"
        chunk = config.task_chunk or default_chunk(stream, config.meta_batch, task_loss, slow)
        chunk = min(chunk, config.meta_batch)
        self.step = MetaStep(
            config, algorithm, task_loss, slow, algorithm.initial_carry(slow), stream, chunk, captured=on_gpu
        )
        self.recorder, self._card_runs = recorder, card_runs
        self.reason = "CPU" if not on_gpu else "--cuda-graph off" if config.cuda_graph != AUTO else ""
        self.reason = task_loss.way.reason or self.reason
        """Why meta-steps run line by line; empty if they are replayed, or if that is not known yet."""
        if recorder is None and not self.reason:
            self.recorder = CudaRecorder(self.device)
        self._replay: Replay | None = None
        self.tensor_peak: int | None = None
        """Most bytes of tensors at once in a meta-step, known after the warm-up."""
        self.memory: Memory | None = None
        self._data_sha256 = stream.pool.source.sha256
        start = Progress(slow, self.step.carry, chunk)
        saved = restore_progress(checkpoint, config, self._data_sha256, start, self.step.optimizer)
        self.resumed = saved is not None
        self.progress = saved or start
        self.step.chunk = self.progress.chunk

    @property
    def mode(self) -> str:
        """Say how meta-steps run: replayed (``graph``), line by line (``eager``), and task by task (``loop``)."""
        return "loop" if self.task_loss.way.name == LOOP else "eager" if self.reason else "graph"

    @property
    def held(self) -> Held:
        """Return what was held at the end of each segment."""
        return Held(self.memory.held, self.memory.files) if self.memory else Held((), ())

    def leak(self) -> str | None:
        """Say what was lost on the way; None if nothing was, so far as is known."""
        sudden = self.memory.leak() if self.memory else None
        return sudden or self.held.leak(self.device.type)

    def warm_up(self) -> None:
        """Run meta-steps without keeping anything of them, look at the values of the first, capture if possible.

        Raises:
            BenchError: names or shapes are not what the contract asks for.
            Diverged: a gradient is not finite.
        """
        config, p = self.config, self.progress
        if config.task_chunk is None and self.device.type == "cuda" and not self.resumed:
            self.step.go_to(0)
            p.chunk = self.step.chunk = measured_chunk(self.step, self._card_runs)
        self.step.go_to(0)
        check_values(config.algo, self._first_estimate())  # of whose result a capture would count the memory twice
        if self.recorder is not None:
            self._capture(self.recorder)
        self.step.go_to(p.meta_step)
        self.memory = Memory(self.device, p.memory, self._replay.peak if self._replay else 0)

    def _first_estimate(self) -> MetaGrad:
        """Return the estimate of a meta-step, its tensors counted meanwhile where they can be."""
        if self.device.type == "cuda":  # where libraries take their workspaces at the first call
            self._sparing(self.step.estimate)
        elif self.config.kernels != EAGER:  # no looking into kernels
            return self._sparing(self.step.estimate)
        found: list[MetaGrad] = []
        try:
            peak = peak_of_tensors(lambda: found.append(self._sparing(self.step.estimate)), self.device)
        except Exception as error:  # of a tensor without storage, say: what is measured must cost no run
            reason = str(error)
            release(self.device)
        else:
            self.tensor_peak = peak
            return found[0]
        result = self._sparing(self.step.estimate)  # which raises what was not the counting's fault
        log.warning("%s: tensors of a meta-step were not counted: %s", self.config.algo, reason)
        return result

    def run(self, advance: Callable[[int], object] = lambda steps: None) -> None:
        """Train to the end of the budget, validating on the way.

        ``advance`` gets the number of meta-steps done since its last call and may raise to stop: the state is whole
        whenever it is called.
        """
        config, progress = self.config, self.progress
        if self.memory is None:
            self.warm_up()
        points = sorted({round(i * config.meta_steps / config.val_points) for i in range(config.val_points + 1)})
        advance(progress.meta_step)
        for point in points:
            while progress.meta_step < point:
                self._segment(point, advance)
                if progress.meta_step < point:
                    self.save()
            if point not in {seen.meta_step for seen in progress.curve}:
                self._validate(advance)
                self.save()
                advance(0)
        self._replay = None  # whose memory the test may need
        hand_back(self.device)

    def save(self) -> None:
        """Write a checkpoint in one step."""
        if self.memory is not None:
            self.progress.memory = self.memory.state
        save_progress(self.checkpoint, self.config, self._data_sha256, self.progress, self.step.optimizer)

    def stream_sha256(self) -> str:
        """Return a hash over what every training task consumed so far holds, in order."""
        return self.stream.digest(self.progress.meta_step * self.config.meta_batch)

    def _segment(self, end: int, advance: Callable[[int], object]) -> None:
        """Train until meta-step ``end``, until a checkpoint is due or the phase ends; the clock runs only here."""
        progress, times = self.progress, StepTimes(self.device)
        assert self.memory is not None, "run() has made it"
        hand_back(self.device)  # so that what evaluation took does not count as training's
        first, captured = progress.meta_step, self.step.phase
        self.step.hold(first)
        if self.step.phase != captured and self._replay is not None:
            self._capture_anew()
        phase = self.step.phase
        if self._replay is None:
            self._sparing(self.step.estimate)  # warm again, off the clock, after an evaluation
        self.memory.open()
        others = Others()
        due = time.monotonic() + CHECKPOINT_EVERY_S
        began = now(self.device)
        times.mark()
        try:
            while (
                progress.meta_step < end and time.monotonic() < due and self.step.phase_at(progress.meta_step) == phase
            ):
                self._meta_step()
                times.mark()
                advance(1)
        finally:
            progress.train_s += now(self.device) - began
            times.close()
            others_s, watched_s = others.seconds()
            progress.others_s += others_s
            progress.watched_s += watched_s
            progress.step_ms += times.ms
            progress.losses += self.step.losses[first : progress.meta_step].tolist()
            self.memory.close()
        self._check_finite()

    def _meta_step(self) -> None:
        progress = self.progress
        self.step.hold(progress.meta_step)
        if self._replay is not None:
            self._replay.run()
        else:
            self.step.apply(self._sparing(self.step.estimate))
        progress.meta_step += 1

    def _capture_anew(self) -> None:
        """Have the step captured in the phase that has begun; that is set-up and not training."""
        assert self.recorder is not None, "what was captured had one"
        began = now(self.device)
        self._replay = None
        self._capture(self.recorder)
        self.step.go_to(self.progress.meta_step)
        self.progress.setup_s += now(self.device) - began

    def _capture(self, recorder: Recorder) -> None:
        """Have the step captured, or say why it is not."""
        try:
            at = min(
                self.progress.meta_step, self.config.meta_steps - 1
            )  # a run that is only to be tested goes on, too
            self._replay = self._sparing(lambda: capture(self.step, recorder, at))
            self.reason = ""
        except CannotCapture as error:
            self.reason = str(error)
            log.warning("%s: the meta-step is not captured and runs line by line: %s", self.config.algo, error)
        if self.reason:
            release(self.device)  # here the exception is gone, and with it what its frames held

    def _sparing(self, work: Callable[[], T]) -> T:
        """Return ``work()``, which changes nothing if it fails, on half the chunk if memory runs out; once per run."""
        p = self.progress
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error) or p.oom_retries or p.chunk == 1:
                raise
            text = " ".join(str(error).split())[:200]
        # Here the exception is gone, and with its frames the tensors that they held.
        release(self.device)
        p.oom_retries += 1
        log.warning("out of memory with %d tasks at once; going on with %d (%s)", p.chunk, p.chunk // 2, text)
        p.chunk = self.step.chunk = p.chunk // 2
        return work()

    def _validate(self, advance: Callable[[int], object]) -> None:
        """Add a point to the curve; one that ``advance`` stops is begun anew by the run that goes on."""
        config, progress = self.config, self.progress
        began = now(self.device)
        loss = math.fsum(progress.losses) / len(progress.losses) if progress.losses else None
        tasks_seen = progress.meta_step * config.meta_batch
        at: dict[str, Any] = {"meta_step": progress.meta_step, "tasks_seen": tasks_seen, "train_s": progress.train_s}
        if progress.curve and not self.algorithm.learns:  # the same weights on the same tasks
            progress.curve.append(replace(progress.curve[-1], **at, query_loss=loss))
        else:
            result = evaluate(
                self.algorithm, self.task_loss, {n: w.detach() for n, w in progress.slow.items()}, progress.carry,
                self.val_stream, config.val_tasks, config.eval_inner_steps, modes=(TRANSDUCTIVE,), at=(),
                advance=lambda tasks: advance(0),
            )  # fmt: skip
            at |= measured(self.val_stream.objective.kind, *mean_ci95(result.final(TRANSDUCTIVE)), "val_")
            progress.curve.append(CurvePoint(**at, query_loss=loss))
        progress.losses = []
        progress.eval_s += now(self.device) - began

    def _check_finite(self) -> None:
        p = self.progress
        numbered = enumerate(p.losses, start=p.meta_step - len(p.losses) + 1)
        step, loss = next(((step, loss) for step, loss in numbered if not math.isfinite(loss)), (math.inf, 0.0))
        bad_step, names = self.step.bad_gradients()
        if names and bad_step < step:
            others = f" (nor of {len(names) - 1} others)" if len(names) > 1 else ""
            raise Diverged(
                f"algorithm {self.config.algo!r}: gradient of {names[0]}{others} is not finite at meta-step {bad_step};"
                " try a lower inner_lr or meta_lr"
            )
        if step < math.inf:
            raise Diverged(f"query loss is {loss} at meta-step {step}; try a lower inner_lr or meta_lr")
        for name, w in p.slow.items():
            if not torch.isfinite(w).all():
                raise Diverged(f"weight {name} is not finite at meta-step {p.meta_step}; try a lower meta_lr")
