"""The HTTP server: the processes that answer on one port, and what bounds their connections."""
