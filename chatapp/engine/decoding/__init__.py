"""Writing: the loop for one reply or several, and the searches."""
