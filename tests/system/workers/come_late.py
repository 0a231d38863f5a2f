"""The last rank comes late: come_late.py SECONDS START_TIMEOUT_S, with 1 s as time limit."""

import os
import sys
import time

from mpi4py import MPI

from knet_hvd.comm import World
from knet_hvd.errors import KnetError

late_s, start_timeout_s = map(float, sys.argv[1:])
try:
    if MPI.COMM_WORLD.Get_rank() == MPI.COMM_WORLD.Get_size() - 1:
        time.sleep(late_s)
    world = World(1.0, start_timeout_s)
    if world.rank == 0:
        time.sleep(late_s)  # while it starts, any rank may be silent
    world.gather_text("", "settings")
    world.end_start()
    if world.rank == 0:
        time.sleep(4.0)  # now it may not
    world.gather_text("", "news")
except KnetError as error:
    sys.stdout.write(f"{error}\n")
    sys.stdout.flush()
    time.sleep(3.0)  # all ranks say what they have found
    os._exit(2)
