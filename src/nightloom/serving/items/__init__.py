"""What is known of items, and those that come by day."""
