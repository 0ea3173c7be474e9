"""The protocol itself, as a state machine that does no I/O."""
