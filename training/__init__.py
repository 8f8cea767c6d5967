"""Training: ACID bags, sequences made of them, and the models that learn from those."""
