"""Errors at run time. A mistake in a call is a ``ValueError`` or ``TypeError`` instead."""


class KnetError(RuntimeError):
    """Report a condition met at run time that is not a mistake in the call."""


class RankMismatchError(KnetError):
    """Report ranks that disagree on what has to be the same on all of them."""


class DataError(KnetError):
    """Report a missing, truncated or malformed data file."""


class CheckpointError(KnetError):
    """Report a checkpoint that cannot be written, or not be resumed from."""


class PreemptionError(KnetError):
    """Report that a signal has ended a job, whose state is in a checkpoint."""
