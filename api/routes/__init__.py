"""Routes, by step of the flow."""
