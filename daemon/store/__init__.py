"""All that is stored: the only package that knows the names of collections and fields."""
