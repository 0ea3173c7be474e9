import signal

import pytest
from hypothesis import settings

# Hypothesis times each example; on a busy machine that says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell has its background jobs ignore SIGINT, nohup SIGHUP, and all that they start. The tests send both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
