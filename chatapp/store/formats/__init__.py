"""Conversations in files: out in five forms, in from three."""
