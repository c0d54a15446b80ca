"""Migrations of the database, run by `clearinghouse.store.migrate`."""
