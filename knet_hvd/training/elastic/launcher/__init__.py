"""``python -m knet_hvd elastic``: Horovod's driver on one network interface."""
