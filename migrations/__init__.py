"""Numbered steps that bring a database to the schema this version of enrichd needs."""
