"""Train a network that is cut into stages, one on each rank.

Blocks become stages (``placement``, ``stage``), ``runners`` order what a stage does,
``decouplers`` say where its gradient comes from, and ``knet_hvd.comm`` carries activations
and gradients.
"""
