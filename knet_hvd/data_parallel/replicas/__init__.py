"""Groups of ranks that hold the same parameters, within a larger job."""
