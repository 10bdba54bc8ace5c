"""The record itself, in Postgres: rows and positions, never a ticket."""
