"""A user's network as blocks: what is cut into stages, and the names of its parameters."""
