"""Storage: every table, every query, every transaction."""
