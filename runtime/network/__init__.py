"""Networks of containers: definitions, leases, links, ports, names and egress rules."""
