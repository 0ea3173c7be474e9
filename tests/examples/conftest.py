from tests.sync.conftest import api, no_delays, no_environment, server, site

__all__ = ["api", "no_delays", "no_environment", "server", "site"]
