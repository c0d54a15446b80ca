"""The `clearinghouse` command: noun verb, --json everywhere, documented exit codes."""
