"""Where fingerprints come from."""
