"""What is true, and the two ways to ask for it."""
