"""The chat screen and its features: each is an object that the screen has, not a class it is."""
