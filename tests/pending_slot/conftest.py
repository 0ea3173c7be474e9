from tests.driver.fixtures import api, impatient_with, no_delays, no_environment, site

__all__ = ["api", "impatient_with", "no_delays", "no_environment", "site"]
