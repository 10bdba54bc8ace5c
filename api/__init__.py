"""How people and programs reach the desk: over HTTP and from the command line."""
