"""What a pipeline job tells about itself: curves, figures and the summary."""
