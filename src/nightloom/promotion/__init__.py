"""The gate between challenger and champion, and the registry behind it."""
