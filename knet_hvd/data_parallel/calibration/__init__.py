"""Measure the exchanges on these ranks, and choose one."""
