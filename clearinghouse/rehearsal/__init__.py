"""A whole market on local tables: the one place that plays every part, and owns every table."""
