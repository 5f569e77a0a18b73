"""What is seen. The only code that imports textual."""
