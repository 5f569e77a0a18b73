"""Which models exist and how they arrive. No torch here."""
