"""Why a recommendation is what it is: Shapley values of history events and item fields, and a check that they hold."""
