from tests.driver.fixtures import api, no_delays, no_environment, site

__all__ = ["api", "no_delays", "no_environment", "site"]
