"""The two bindings, their JSON, and server-sent events. Nothing here does I/O."""
