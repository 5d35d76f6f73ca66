"""Measurements of enrichd; each module is a command that prints a table or JSON."""
