"""The two bindings, their JSON, and server-sent events: bytes and values, no I/O."""
