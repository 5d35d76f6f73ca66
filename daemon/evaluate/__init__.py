"""Measures the enrichers on labelled images, so that nobody has to trust a model blindly; one module a task."""
