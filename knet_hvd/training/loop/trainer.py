"""The training loop: epochs and steps, evaluation, curves and checkpoints of both jobs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from torch import Tensor

from knet_hvd.metrics import profile_steps, progress
from knet_hvd.training.config import JobConfig
from knet_hvd.training.loop.evaluation import evaluate
from knet_hvd.training.loop.learning_rate import set_learning_rate
from knet_hvd.training.loop.meter import TrainingMeter
from knet_hvd.training.loop.monitor import Monitor
from knet_hvd.training.loop.task import Results, TrainingTask
from knet_hvd.training.state.interfaces import Checkpoints

Task = TypeVar("Task", bound=TrainingTask)


class Trainer(Generic[Task]):
    """Make a run of so many steps, from a checkpoint or from the start.

    Attributes:
        config: The job's, the same on every rank.
        task: What this rank trains.
        num_steps: Steps of the whole run.
    """

    def __init__(
        self,
        config: JobConfig,
        task: Task,
        checkpoints: Checkpoints,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Bring the task to where the run begins.

        Args:
            config: The job's, the same on every rank.
            task: What this rank trains.
            checkpoints: Know where the run begins, and save it.
            on_progress: Called after each step and each evaluation.

        Raises:
            CheckpointError: On every rank, if the task cannot continue from the checkpoint.
        """
        self.config = config
        self.task = task
        self._state = task.state.rank_state
        self._checkpoints = checkpoints
        self._on_progress = on_progress
        start, batches = checkpoints.resume_point, task.source.batches
        steps_left = batches.num_batches(start.samples) - start.batch
        steps_left += (config.epochs - start.epoch - 1) * len(batches)
        self.num_steps = start.step + steps_left
        if config.max_steps is not None:
            self.num_steps = min(self.num_steps, config.max_steps)
        self._step = start.step
        checkpoints.begin(task.state, batches, self.num_steps)

    def train(self) -> dict[str, Any]:
        """Make all steps and return the summary, the same on every rank.

        After it, ``close``.

        Raises:
            PreemptionError: On every rank, if a signal ended the run; it is saved.
            KnetError: If training diverged, or a rank is lost.
        """
        with self.task.running():
            return self._train()

    def _train(self) -> dict[str, Any]:
        config, task, start = self.config, self.task, self._checkpoints.resume_point
        with (
            Monitor(config, task.curves, self._checkpoints.first_logged_step) as monitor,
            profile_steps(config.profile, task.rank) as after_profiled_step,
            progress(desc="training", rank=0 if task.reports else 1, total=self.num_steps) as bar,
        ):
            self._state.logger = monitor.logger
            meter = TrainingMeter(task)
            bar.update(start.step)
            for epoch in range(start.epoch, config.epochs):
                monitor.restart()
                with meter.training():
                    for inputs, targets in self._batches(epoch):
                        self._make_step(inputs, targets, monitor)
                        after_profiled_step()
                        bar.update()
                    task.drain()
                self._state.check_finite(self._step)
                test = evaluate(task, "test")
                self._on_progress()
                if task.reports:
                    monitor.after_epoch(test, self._step)
                    bar.set_postfix(_postfix(task.loss, test), refresh=False)
                if self._step == self.num_steps:
                    break
            summary = task.summary(self._results(test, meter))
            if task.reports:
                monitor.finish(test)
        return summary

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield what is left of an epoch, up to the last step of the run."""
        for batch in self.task.source.training(epoch, self._checkpoints.resume_point):
            if self._step == self.num_steps:
                return
            yield batch

    def _make_step(self, inputs: Tensor | None, targets: Tensor, monitor: Monitor) -> None:
        """Make one training step, and save the state if it is time."""
        task, state, step = self.task, self._state, self._step
        self._checkpoints.before_step()
        self._set_learning_rate()
        monitor.before_step(step)
        task.step(step, inputs, targets)
        state.average.update(state.model, step)
        monitor.after_step(step, len(targets) * task.source.num_shares)
        self._step += 1
        is_last = self._step == self.num_steps
        if is_last:
            task.drain()  # so that the last checkpoint holds the final model
        self._checkpoints.after_step(self._step, is_last)
        self._on_progress()

    def _set_learning_rate(self) -> None:
        config, optimizer = self.config, self._state.optimizer
        if optimizer is not None:
            start = self._checkpoints.resume_point
            set_learning_rate(
                optimizer.param_groups,
                config.learning_rate_schedule,
                config.learning_rate,
                start.remaining_at(self._step, self.num_steps),
            )

    def _results(self, test: Mapping[str, float], meter: TrainingMeter) -> Results:
        return Results(
            num_steps=self._step,
            resumed_step=self.resumed_step,
            test=test,
            train_seconds=meter.elapsed_s,
            counted=meter.counted,
            peak_memory_bytes=meter.peak_bytes,
        )

    @property
    def resumed_step(self) -> int:
        """Return the steps that a checkpoint held, after which the run continues; 0 without one."""
        return self._checkpoints.resume_point.step

    @property
    def resumed_text(self) -> str:
        """Say where the run continues."""
        if self.resumed_step >= self.num_steps:
            return f"already complete: step {self.resumed_step} of {self.num_steps}; evaluating"
        return f"resuming after step {self.resumed_step}"

    def close(self) -> None:
        """Wait for the last checkpoint, and let another job have the folder.

        Raises:
            CheckpointError: On every rank, if the last one could not be written.
        """
        try:
            self._checkpoints.finish(self.num_steps)
        finally:
            self._checkpoints.close()


def _postfix(loss: float | None, test: Mapping[str, float]) -> dict[str, str]:
    """Return what stands after the progress bar: of the test split, the first figure."""
    shown = {} if loss is None else {"loss": f"{loss:.3f}"}
    return shown | {"test": f"{next(iter(test.values())):.4f}"}


@contextmanager
def closed_on_error(checkpoints: Checkpoints) -> Iterator[None]:
    """Let another job have the folder if building the task fails within."""
    try:
        yield
    except BaseException:
        checkpoints.close()
        raise
