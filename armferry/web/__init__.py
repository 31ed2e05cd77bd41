"""Pages and pictures of a fleet: one file each, nothing fetched, readable without a script."""
