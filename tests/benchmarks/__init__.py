"""What the desk can carry, measured beside the plain way of doing the same."""
