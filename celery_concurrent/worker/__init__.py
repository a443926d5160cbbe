"""The worker around the pool: its start, its consumer, and how it fetches by slots."""
