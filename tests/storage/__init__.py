"""The record, examined on a real Postgres."""
