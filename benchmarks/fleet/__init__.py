"""Fleets: how policies would have sized them on recorded arrivals, beside the peers' rules."""
