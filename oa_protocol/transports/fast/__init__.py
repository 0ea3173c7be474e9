"""A fast transport on anyio's sockets and httptools, for streams of many tokens."""
