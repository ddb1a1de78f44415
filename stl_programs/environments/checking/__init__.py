"""The parts of `check_environment`: what is declared, what is played, what travels."""
