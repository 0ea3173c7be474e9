"""How many files of the package one prompt passes."""

from tests.tools.measure_path import follow

MOST_FILES = 23
MOST_FUNCTIONS = 178


def test_a_prompt_passes_no_more_files_than_it_did() -> None:
    path = follow()
    assert len(path) <= MOST_FILES, list(path)
    assert sum(map(len, path.values())) <= MOST_FUNCTIONS, path
    assert {"client/client.py", "engine/conversation.py", "bindings/website.py"} <= path.keys()
    assert not any(file.startswith(("server/", "transports/")) for file in path)
