"""Forgetting people: all places where the id of one sits, and the record that it was done."""
