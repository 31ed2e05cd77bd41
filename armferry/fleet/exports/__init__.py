"""What is known of a fleet in the forms of other programs."""
