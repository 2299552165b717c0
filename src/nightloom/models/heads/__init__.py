"""What looks at candidates again: the re-ranker and the label head, with their counters."""
