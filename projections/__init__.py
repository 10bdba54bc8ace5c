"""The views people read, folded from the events and free to be thrown away."""
