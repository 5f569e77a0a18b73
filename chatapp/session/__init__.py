"""One turn: save, ask, save as it comes."""
