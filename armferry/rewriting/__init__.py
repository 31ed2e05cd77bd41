"""A stream rewritten: files, and later connections."""
