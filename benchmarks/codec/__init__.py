"""The codec alone: values per second."""
