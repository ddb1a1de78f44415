"""From training rows to weights."""
