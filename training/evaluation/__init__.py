"""Evaluation: how good flights are, in the papers' figures and some that need no reference."""
