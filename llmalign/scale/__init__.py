"""State on disk, and later many processes."""
