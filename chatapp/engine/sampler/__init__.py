"""The sampler: from one step's logits to one token, with every stage on the record."""
