"""The click models by name; light, so that a command can refuse a typo before it imports them."""

FAMILIES = ("head", "lightgbm", "logistic")
