"""The client: what carries out an engine's intents, and the friendly API on top."""
