"""Where a network is cut, and which rank holds which stage."""
