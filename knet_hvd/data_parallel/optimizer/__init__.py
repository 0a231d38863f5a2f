"""The optimizers: Horovod's argument list, ternary gradients inside."""
