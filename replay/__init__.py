"""Reading the past: a ticket's whole life, the desk as of then, a view built anew."""
