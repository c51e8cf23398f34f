"""How a command ends, for who started it."""

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
