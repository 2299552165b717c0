"""Where tables come from: files, databases, named data sets."""
