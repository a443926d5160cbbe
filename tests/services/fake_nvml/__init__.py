"""A driver of one's own: the C library that NVML's bindings load, with devices from a file."""
