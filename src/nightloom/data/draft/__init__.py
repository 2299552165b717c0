"""A first config for tables that nobody has described: what they look like, what their columns may mean, and the YAML."""
