"""Write checkpoints beside training, after the same steps on all ranks.

A checkpoint takes three phases: every rank writes its shard in the background; when the
flags say that all have, rank 0 learns their hashes and commits the checkpoint, in the
background as well; when the flags say that this is over, the next one may begin.
"""

import logging
from collections.abc import Callable
from enum import Enum, auto

from knet_hvd.checkpoint.background import BackgroundTask
from knet_hvd.checkpoint.manifest import Manifest
from knet_hvd.checkpoint.preemption import StopSignals
from knet_hvd.checkpoint.ranks import Flags, Ranks, StatusExchange
from knet_hvd.checkpoint.shards import ShardRecord
from knet_hvd.checkpoint.state_tree import StateTree
from knet_hvd.checkpoint.store import CheckpointStore
from knet_hvd.errors import CheckpointError, PreemptionError

_IN_TOUCH_S = 0.5
_logger = logging.getLogger("knet_hvd")


class _Phase(Enum):
    """What the latest checkpoint is waiting for."""

    IDLE = auto()
    """It is on the disk, or could not be written."""
    SHARDS = auto()
    """Ranks write their shards."""
    COMMIT = auto()
    """Rank 0 writes the manifest and renames the folder."""


class AsyncCheckpointWriter:
    """Save the job every so many steps, and when a signal asks it to stop.

    Attributes:
        last_step: Step of the latest checkpoint that is on the disk; None without.
    """

    def __init__(
        self,
        store: CheckpointStore,
        ranks: Ranks,
        signals: StopSignals,
        *,
        every: int,
        capture: Callable[[int], StateTree],
        describe: Callable[[int, tuple[ShardRecord, ...]], Manifest],
        last_step: int | None = None,
        shard: int | None = None,
        lag: int = 0,
    ) -> None:
        """Write nothing yet.

        Args:
            store: Opened by ``open_store``.
            ranks: All ranks of the job.
            signals: Those that ask to stop.
            every: Steps between checkpoints.
            capture: Returns this rank's shard after so many steps.
            describe: Returns the manifest for a step and its shards.
            last_step: Step of the checkpoint that the job was resumed from.
            shard: Number of this rank's shard; the rank if not given.
            lag: Steps by which a rank may be ahead of another: see ``StatusExchange``.
        """
        self.last_step = last_step
        self._store = store
        self._every = every
        self._capture = capture
        self._describe = describe
        self._signals = signals
        self._ranks = ranks
        self._shard = ranks.rank if shard is None else shard
        self._flags = StatusExchange(ranks, lag)
        self._task = BackgroundTask()
        self._phase = _Phase.IDLE
        self._step = 0
        self._due = False
        self._failure = ""

    def _own_flags(self) -> Flags:
        failed = bool(self._task.error)
        return Flags(bool(self._signals.received), self._task.is_busy, failed)

    def before_step(self) -> None:
        """Tell the other ranks how things stand here."""
        self._flags.start(self._own_flags())

    def after_step(self, step: int, is_last: bool) -> None:
        """Write a checkpoint if one is due; never wait for the disk, unless to stop.

        Args:
            step: Steps made so far.
            is_last: Whether it was the run's last step, after which the state is saved.

        Raises:
            PreemptionError: On every rank, after a signal on any: the state is saved.
            CheckpointError: On every rank, if it could not be.
        """
        flags = self._flags.finish()
        self._advance(flags)
        self._due = self._due or is_last or step % self._every == 0
        if flags.stop or (is_last and self._phase != _Phase.IDLE):
            self._drain()
        if (self._due or flags.stop) and self._phase == _Phase.IDLE:
            self._begin(step)
        if flags.stop:
            self._drain()
            self._check_saved(step)
            if not is_last:
                self._stop(step)

    def finish(self, step: int) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            CheckpointError: On every rank, if it could not be written.
        """
        self._drain()
        self._flags.close()
        self._check_saved(step)

    def close(self) -> None:
        """End the thread."""
        self._task.close()

    def _begin(self, step: int) -> None:
        """Copy the state, and have it written."""
        self._due = False
        if step == self.last_step:
            return
        tree = self._capture(step)
        self._phase, self._step = _Phase.SHARDS, step
        self._flags.begin()
        self._task.start(self._store.write_shard, step, self._shard, tree)

    def _advance(self, flags: Flags) -> None:
        """Enter the next phase, when all ranks have ended this one."""
        if self._phase == _Phase.IDLE or flags.busy:
            return
        if flags.failed:
            self._give_up()
        elif self._phase == _Phase.SHARDS:
            self._phase = _Phase.COMMIT
            self._flags.begin()
            records = self._gather_records()
            if self._ranks.rank == 0:
                manifest = self._describe(self._step, records)
                self._task.start(self._store.commit, manifest)
            else:
                self._task.forget()
        else:
            self._phase, self.last_step, self._failure = _Phase.IDLE, self._step, ""
            self._task.forget()

    def _give_up(self) -> None:
        """Remove a checkpoint that some rank could not write, and say so."""
        errors = self._ranks.gather_texts(self._task.error, "checkpoint failure")
        reasons = "; ".join(f"rank {r}: {e}" for r, e in enumerate(errors) if e)
        kept = (
            "there is none yet"
            if self.last_step is None
            else f"the latest is of step {self.last_step}"
        )
        path = self._store.path(self._step)
        self._failure = f"checkpoint {path} could not be written ({reasons}); {kept}"
        if self._ranks.rank == 0:
            self._store.discard(self._step)
            _logger.warning("%s", self._failure)
        self._phase = _Phase.IDLE
        self._task.forget()

    def _gather_records(self) -> tuple[ShardRecord, ...]:
        own: ShardRecord = self._task.result
        text = f"{self._shard} {own.sha256} {own.num_bytes}"
        rows = [each.split() for each in self._ranks.gather_texts(text, "checkpoint shards")]
        by_number = {int(number): (sha, int(size)) for number, sha, size in rows}
        return tuple(ShardRecord(*by_number[number]) for number in sorted(by_number))

    def _drain(self) -> None:
        """Wait for what is being written; all ranks keep in touch."""
        while self._phase != _Phase.IDLE:
            self._task.wait(_IN_TOUCH_S)
            self._advance(self._flags.exchange(self._own_flags()))

    def _check_saved(self, step: int) -> None:
        if self.last_step != step:
            raise CheckpointError(self._failure or f"step {step} was not saved")

    def _stop(self, step: int) -> None:
        self._flags.close()
        received = self._ranks.gather_texts(self._signals.received, "signals")
        names = "/".join(dict.fromkeys(name for name in received if name))
        raise PreemptionError(
            f"stopped by {names} after step {step}, saved in "
            f"{self._store.path(step)}: the same command continues from there"
        )
