"""What is kept: conversations on disk, in and out of them."""
