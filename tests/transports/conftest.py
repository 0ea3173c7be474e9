from tests.driver.fixtures import no_environment

__all__ = ["no_environment"]
