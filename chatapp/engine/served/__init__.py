"""A model that another program serves: the same engine from outside, without the logits."""
