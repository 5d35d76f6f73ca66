"""The enrichd daemon: from a document that says where an image is to the document that says what is in it."""
