"""From search trees to training rows."""
