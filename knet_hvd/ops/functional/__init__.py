"""The ops as documented functions, with output tensors made where not given.

One call treats all gradients of a bucket: a GPU takes about a hundred tensors a launch,
and a CPU is spared a call from Python for each. Their sizes, dtypes and alignments may
differ; the bits are those of one call for each.
"""
