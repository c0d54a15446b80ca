"""Differential privacy: exact integer noise, costs, the owner's ledger, audits of mechanisms."""
