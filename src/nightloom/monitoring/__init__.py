"""Watching nights: drift of events and items, quality and cost of nights, alarms that seldom ring in vain."""
