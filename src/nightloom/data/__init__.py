"""From raw tables to packed sequences: sources, snapshot, cleaning, labels, splits."""
