"""The rules of the desk: tickets, customers, agents and teams, without I/O, clock or random ids."""
