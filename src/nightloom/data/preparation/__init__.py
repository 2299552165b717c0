"""From canonical tables to sequences: cleaning, labels, the split, item features."""
