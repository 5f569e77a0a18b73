"""What the interface does, apart from how it looks: turns, models, conversations, copying."""
