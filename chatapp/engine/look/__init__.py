"""Questions about written replies and given texts."""
