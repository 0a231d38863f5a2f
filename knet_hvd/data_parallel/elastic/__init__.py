"""Elastic data parallelism: a job that goes on when workers die, and takes in new ones.

Two sides. ``command``, ``driver``, ``rendezvous``, ``discovery``, ``processes`` and
``interfaces`` are the launcher, ``python -m knet_hvd elastic``: Horovod's driver with
its server bound to one address. ``training``, ``commits``, ``state_sync``, ``memory``
and ``host_watch`` are the workers' side. Neither unpickles anything from the network.
"""

LAUNCHED_BY = "KNET_HVD_ELASTIC"
"""Environment variable by which a worker knows that this launcher started it."""
