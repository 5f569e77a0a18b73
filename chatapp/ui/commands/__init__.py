"""Slash commands: one table that the prompt, its completion, the palette and the help all read."""
