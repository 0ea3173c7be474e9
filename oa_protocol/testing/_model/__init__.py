"""The simulation that the explorer and the state machine use."""
