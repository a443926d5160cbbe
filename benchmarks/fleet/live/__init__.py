"""Fleets: what a real autoscaler, with real nodes and brokers, takes to act and costs at rest."""
