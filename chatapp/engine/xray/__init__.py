"""What happens inside the model: embeddings, attention, layers, anatomy. The float32 weights
through transformers, loaded when first asked for; whichever runtime writes the replies."""
