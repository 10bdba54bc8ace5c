"""Views and what is told of them over HTTP, a module each."""
