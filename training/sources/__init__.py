"""Sources: what becomes ACID bags, one module or package each."""
