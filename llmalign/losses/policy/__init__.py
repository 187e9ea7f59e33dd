"""Losses that learn from advantages."""
