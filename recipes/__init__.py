"""Recipes: one YAML file describes one run completely."""
