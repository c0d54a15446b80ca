"""The protocol, its parties and its server-side steps."""
