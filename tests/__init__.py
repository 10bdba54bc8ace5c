"""The desk, examined from outside and inside."""
