"""What runs at a party: keys, ledgers and tables stay; only messages and sealed bytes leave."""
