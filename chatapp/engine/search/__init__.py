"""Decoders that weigh several continuations at every step."""
