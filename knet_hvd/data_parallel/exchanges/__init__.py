"""How codes cross the network: one exchange a file."""
