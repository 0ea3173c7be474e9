"""The client: the friendly API, and the driver below it, which carries out the engine's intents."""
