"""Real servers and real nodes for tests, each of its own, all of them ended with the run."""
