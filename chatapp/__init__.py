"""Chat in the terminal with a language model on your own machine, and see how it writes."""

__version__ = "0.1.0"
