"""Which samples and which problems are trained on, and the list of what was not."""
