"""What the user chose, and where files live."""
