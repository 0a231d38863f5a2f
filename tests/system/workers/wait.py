"""Ranks that wait for each other, second by second, under a limit of five seconds."""

import os
import sys
import time

from knet_hvd.comm import World
from knet_hvd.errors import KnetError
from knet_hvd.training.watchdog import Watchdog

LIMIT_S = 5.0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def expire(message: str) -> None:
    say(f"watchdog: {message}")
    os._exit(3)


def main() -> int:
    world = World(timeout_s=LIMIT_S)
    try:
        with Watchdog(LIMIT_S, expire) as watchdog:
            for step in range(3):
                if world.rank == 1:
                    time.sleep(1.5)
                world.gather_text("", "each other")
                watchdog.progress()
                if step == 0:
                    say(f"rank {world.rank} is process {os.getpid()}")
    except KnetError as error:
        say(str(error))
        os._exit(2)
    say(f"rank {world.rank} is done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
