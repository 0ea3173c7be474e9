from tests.cli.conftest import no_process_is_left as no_process_is_left
from tests.cli.conftest import server as server
from tests.cli.conftest import state_folder as state_folder
from tests.cli.conftest import terminal as terminal
