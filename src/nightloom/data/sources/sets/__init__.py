"""Named data sets: one file a publisher turns raw files into canonical columns; `nightloom.data.sources.named` finds them by name."""
