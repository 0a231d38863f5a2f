"""What measures: every script prints JSON."""
