"""What an update of a stage is made of: several optimizers, a limit on the norm."""
