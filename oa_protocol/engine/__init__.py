"""The protocol itself: a state machine that does no I/O."""
