"""The commits of an elastic job: what stands where other jobs have checkpoints."""

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HostsUpdatedInterrupt

from knet_hvd.data import ShardedBatches
from knet_hvd.errors import KnetError
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.elastic.worker.commit_memory import Commit, CommitMemory
from knet_hvd.training.elastic.worker.host_watch import HostWatch
from knet_hvd.training.elastic.worker.state_sync import agree_on_state
from knet_hvd.training.state.interfaces import JobState, SavedState
from knet_hvd.training.state.resume_point import ResumePoint


class ElasticCommits:
    """Bring the workers that have met to one state, and keep it while they train.

    To the training loop it is what ``CheckpointManager`` is for jobs with a folder.
    """

    def __init__(self, config: TrainingConfig, memory: CommitMemory, watch: HostWatch) -> None:
        """Agree on where to continue; all workers at once.

        Args:
            config: The job's, the same on all ranks.
            memory: Of this worker; lasts longer than this object.
            watch: Tells when hosts came or went.
        """
        self._every = config.commit_every
        self._memory = memory
        self._watch = watch
        watch.acknowledge()
        self._agreed = agree_on_state(memory)
        agreed = self._agreed
        self.resume_point = agreed.resume_point if agreed else ResumePoint(remaining=1.0)

    @property
    def first_logged_step(self) -> int | None:
        """What TensorBoard is to take for the first step since the workers met."""
        return None if self._agreed is None else self.resume_point.step

    def begin(self, state: JobState, batches: ShardedBatches, num_steps: int) -> None:
        """Bring this rank to the agreed state.

        Args:
            state: What is restored and captured.
            batches: Of the training set, for the present number of ranks.
            num_steps: Steps of the whole run, if the number stays.
        """
        self._state, self._batches, self._num_steps = state, batches, num_steps
        if self._agreed is not None:
            state.restore(SavedState({0: self._agreed.shard}, 1, self.resume_point.step))
            self._agreed = Commit(self.resume_point, {})  # its tensors are the model's now
        self._commit(self.resume_point.step)

    def before_step(self) -> None:
        """Do nothing: workers that are lost do not announce it."""

    def after_step(self, step: int, is_last: bool) -> None:
        """Commit if it is time, and let the workers form the group again if hosts came or went.

        Args:
            step: Steps made so far.
            is_last: Whether it was the run's last step.

        Raises:
            HostsUpdatedInterrupt: On every rank, if they shall.
            KnetError: On every rank, if the launcher has ended.
        """
        self._memory.steps_made = step
        if not is_last and step % self._every:
            return
        own = torch.tensor([self._watch.has_changed, self._watch.is_lost]).int()
        flags = hvd.allreduce(own, op=hvd.Max, name="knet_hvd.elastic.flags")
        has_changed, is_lost = flags.tolist()
        self._commit(step)
        if is_lost:
            raise KnetError("the launcher has ended: nobody would take in new workers")
        if has_changed and not is_last:
            raise HostsUpdatedInterrupt(False)

    def _commit(self, step: int) -> None:
        shard = self._state.capture(step)
        self._memory.add(Commit(self._resume_point_at(step), shard))
        self._memory.steps_made = step

    def _resume_point_at(self, step: int) -> ResumePoint:
        start, batches = self.resume_point, self._batches
        made = step - start.step
        in_epoch = batches.num_batches(start.samples)
        epoch, samples = start.epoch, start.samples
        if made > in_epoch:
            whole_epochs, made = divmod(made - in_epoch - 1, len(batches))
            epoch, samples, made = epoch + 1 + whole_epochs, 0, made + 1
        samples += made * batches.batch_size * batches.num_ranks
        remaining = start.remaining_at(step, self._num_steps)
        return ResumePoint(step, epoch, 0, samples, remaining)

    def finish(self, step: int) -> None:
        """Do nothing: nothing is being written."""

    def close(self) -> None:
        """Do nothing: the memory outlives this object."""
