"""The worker pool: slots, the runners of sync and async inputs, and their settling."""
