"""Elastic data parallelism: a job that continues when workers die, and takes in new ones.

``launcher`` is ``python -m knet_hvd elastic``: Horovod's driver with its server bound to
one address. ``worker`` is what its processes run. Neither unpickles anything from the
network.
"""

LAUNCHED_BY = "KNET_HVD_ELASTIC"
"""Environment variable by which a worker knows that this launcher started it."""
