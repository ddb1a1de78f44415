"""A model directory, run in this process."""
