"""What opens over the chat and gives back what was chosen."""
