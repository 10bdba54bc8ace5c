"""Views: what people see of the log, folded from its events into tables that can be thrown away and rebuilt."""
