"""What people and programs may ask the desk to do."""
