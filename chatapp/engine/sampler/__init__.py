"""The chain from logits to a draw: small pure functions, and their trace."""
