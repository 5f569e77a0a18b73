"""Looking inside the model, on the screen: pages about the token pointed at, and its journey."""
