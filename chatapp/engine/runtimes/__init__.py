"""What turns ids into logits."""
