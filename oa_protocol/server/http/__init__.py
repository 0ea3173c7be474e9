"""The server over HTTP on loopback: connections, tasks and clocks around the core."""
