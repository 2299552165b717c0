"""Why an item is recommended: Shapley values over history events and item fields."""
