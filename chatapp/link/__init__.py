"""The engine in a process of its own, and the one way to talk to it."""
