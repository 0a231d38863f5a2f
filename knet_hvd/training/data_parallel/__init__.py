"""The data-parallel training job."""
