"""Every shape an event was ever stored in, and how older ones are read today."""
