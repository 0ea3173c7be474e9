"""A transport of our own on httptools, for streams of many tokens."""
