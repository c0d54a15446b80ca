"""The transparency log: entries, Merkle tree, checkpoints, receipts, offline verification."""
