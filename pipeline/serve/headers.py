"""Headers of answers that are this querier's own. Loads nothing: those who ask read them too."""

COPIES_HEADER = "x-spanstream-copies"  # of a trace by ID: its late copies that are stored too
