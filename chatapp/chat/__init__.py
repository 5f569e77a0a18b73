"""What is said: plain values and functions. No I/O, no torch, no textual."""
