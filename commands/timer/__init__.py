"""What time itself does to tickets: deadlines that pass, waits that end, adoptions that reach what is open."""
