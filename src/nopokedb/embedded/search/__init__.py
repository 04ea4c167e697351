"""What is derived: indexes over the vectors. Every file of it may be deleted at any time."""
