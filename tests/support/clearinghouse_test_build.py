"""Its being importable makes this a test build: see `clearinghouse.failpoints`. Never shipped."""
