"""Self-Taught Lookahead on Game of 24."""
