"""SSH: connections with a pinned host key, to guests and to the machines that hypervisors run on."""
