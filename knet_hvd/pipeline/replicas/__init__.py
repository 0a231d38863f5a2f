"""Replicas of a stage: data parallelism within the pipeline."""
