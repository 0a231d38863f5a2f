"""From gradients to averaged gradients, as backward produces them."""
