"""The server over HTTP on loopback: the connections, tasks and clocks around the core."""
