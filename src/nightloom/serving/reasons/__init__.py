"""Why an item is recommended: coalitions of events, an estimate of their values, and words."""
