"""Checks from outside: what the log says, what the database holds, what lies on the disk."""
