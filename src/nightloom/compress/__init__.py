"""What serves, made smaller, where a measure says that nothing is lost by it."""
