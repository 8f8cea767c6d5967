"""Evaluation: how good flights are, in the figures of the papers and in some of our own."""
