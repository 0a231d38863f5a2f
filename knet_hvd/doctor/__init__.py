"""``python -m knet_hvd doctor``: what would stop or slow a job, and how to fix it.

Read in this order: ``facts`` are measured by ``software`` and ``machine``; ``checks``
turn facts into findings; ``ranks`` compares ranks, and times links and processors;
``report`` writes it all down.
"""

from knet_hvd.doctor.findings import Finding, Level, exit_code
from knet_hvd.doctor.report import Report

__all__ = ["Finding", "Level", "Report", "exit_code"]
