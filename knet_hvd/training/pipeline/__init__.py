"""The pipeline training job."""
