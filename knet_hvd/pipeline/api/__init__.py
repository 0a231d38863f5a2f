"""What scripts of users call: ``Pipeline``, and what its methods do."""
