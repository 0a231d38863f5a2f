"""What ranks tell each other when a script ends, or when one of them cannot continue."""

import atexit
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from knet_hvd.comm import World
from knet_hvd.comm.world import leave

_GRACE_S = 5.0
"""How long a rank whose script has failed waits for the others to end as well."""


class Ending:
    """Let no rank wait for one that has failed, or that has nothing more to do."""

    def __init__(self, world: World, close: Callable[[], None]) -> None:
        """Prepare for the end of the script.

        Args:
            world: All ranks.
            close: Waits for the other ranks; called at the end of the script.
        """
        self._world = world
        self._close = close
        self._has_failed = False
        atexit.register(self._at_exit)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell all ranks why this one raises within: they would wait for it in vain."""
        try:
            yield
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Tell all ranks of an error, unless another rank has told them."""
        self._has_failed = True
        self._world.notices.fail(str(error) or type(error).__name__)

    @contextmanager
    def after_steps(self, num_steps: int, on_wait: Callable[[], None]) -> Iterator[None]:
        """Do within what all ranks do together between two loops of training steps.

        A rank whose loader has another batch learns that the others have none.

        Args:
            num_steps: Steps that this rank has made.
            on_wait: Called again and again while this rank waits for the others.
        """
        self._world.notices.leave_steps(num_steps)
        with self.telling():
            self._world.gather_text("", "all ranks to end their steps", 1.0, on_wait)
            yield
        self._world.notices.begin_steps()

    def _at_exit(self) -> None:
        """Close at the end of the script, or end all ranks if it has failed."""
        error = getattr(sys, "last_value", None)  # set once a traceback has been printed
        if error is None:
            if self._has_failed:  # and the script has caught the error
                return
            try:
                self._close()
            except Exception as problem:
                traceback.print_exc()
                error = problem
        if error is not None:
            self.fail(error)
            # MPI's own end would wait for messages that nobody takes any more.
            leave(_GRACE_S)

    def forget(self) -> None:
        """Do nothing at the end of the script."""
        atexit.unregister(self._at_exit)
