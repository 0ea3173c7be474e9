from tests.driver.fixtures import api, either_transport, impatient_with, no_delays, no_environment, site

__all__ = ["api", "either_transport", "impatient_with", "no_delays", "no_environment", "site"]
