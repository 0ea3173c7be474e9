"""``oa-protocol bulk``: what goes in, what comes out, and what a second run, a Ctrl-C and a SIGKILL leave of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from oa_protocol.cli import _bulk_input, _bulk_output
from oa_protocol.cli._bulk_input import read_prompts
from oa_protocol.cli._prompts import MAX_PROMPT
from oa_protocol.server import Answer, Fault, Hold, Never, Reply, Reset, Server
from tests.cli.command import Done, credentials, ended, oa_protocol, started
from tests.cli.pseudo_terminal import TERMINAL, Pseudo

FULL = Path("/dev/full")
REFUSAL = Reply(422, b'{"message": "no"}')


class Work:
    """A folder with prompts and results."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.out = folder / "out.jsonl"
        self.server = server
        self._folder = folder

    def prompts(self, text: str | bytes, name: str = "in.txt") -> str:
        path = self._folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def run(self, source: str, *options: str, stdin: str = "") -> Done:
        return oa_protocol("bulk", source, str(self.out), *options, stdin=stdin, env=credentials(self.server))

    def start(self, source: str, *options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return started(["bulk", source, str(self.out), *options], credentials(self.server), stdout=stdout)

    def run_without_a_reader(self, source: str, *options: str) -> Done:
        """Run it with a stdout that is closed at its other end."""
        out_end, in_end = os.pipe()
        os.close(out_end)
        process = self.start(source, *options, stdout=in_end)
        os.close(in_end)
        return ended(process)

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text("utf-8").splitlines()]

    @property
    def texts(self) -> dict[object, str]:
        return {result["id"]: result["text"] for result in self.results}


@pytest.fixture
def work(tmp_path: Path, server: Server) -> Work:
    return Work(tmp_path, server)


def test_each_line_is_a_prompt_and_stdout_stays_clean(work: Work) -> None:
    done = work.run(work.prompts("one\n\ntwo\r\nthree, “é”"))
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("3 answered, 0 failed, 0 done before, 0 not asked;")
    assert sorted(result["text"] for result in work.results) == ["one", "three, “é”", "two"]
    for result in work.results:
        assert (result["error"], result["tries"]) == (None, 1)
    assert work.server.chats == ()


def test_the_prompts_can_come_from_stdin(work: Work) -> None:
    assert work.run("-", "--quiet", stdin="one\ntwo\n") == Done(0, "", "")
    assert len(work.results) == 2


def test_a_json_line_can_have_an_id_and_settings(work: Work) -> None:
    lines = [
        {"id": 7, "prompt": "one", "system_prompt": "Be brief", "sampling": {"top_k": 3}},
        {"id": "b", "prompt": "two"},
    ]
    source = work.prompts("\n".join(map(json.dumps, lines)), "in.jsonl")
    assert work.run(source, "--top-p", "0.5", "--concurrency", "1").code == 0
    assert work.texts == {7: "one", "b": "two"}
    first, second = [json.loads(one.body) for one in work.server.requests if one.step == "request"]
    assert (first["system_prompt"], first["sampling_parameters"]["top_k"]) == ("Be brief", 3)
    assert first["sampling_parameters"]["top_p"] == second["sampling_parameters"]["top_p"] == 0.5


def test_a_line_of_csv_can_have_an_id(work: Work) -> None:
    source = work.prompts('id,prompt,system_prompt\na,"one, and\nmore",\nb,two,Be brief\n', "in.csv")
    assert work.run(source).code == 0
    assert work.texts == {"a": "one, and\nmore", "b": "two"}


def test_a_prompt_in_csv_can_be_as_long_as_any_other(work: Work) -> None:
    assert work.run(work.prompts(f"id,prompt\na,{'x' * 200_000}\n", "in.csv")).code == 0
    assert len(work.texts["a"]) == 200_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("in.jsonl", '{"prompt": "x"}\n{"prompt": ', "line 2 of the input: Input data was truncated"),
        ("in.jsonl", '{"prompt": "x", "promt": 1}', "line 1 of the input: Object contains unknown field `promt`"),
        ("in.jsonl", '{"id": 1, "prompt": "x"}\n{"id": "1", "prompt": "y"}', "the id '1' is that of line 1, too"),
        ("in.csv", "id,text\na,b\n", "line 2 of the input: Object contains unknown field"),
        ("in.csv", "id,prompt\na,b,c\n", "line 2 of the input: it has more cells than the first line"),
        (
            "in.jsonl",
            '{"prompt": "x", "sampling": {"a": ' + "[" * 9999 + "]" * 9999 + "}}",
            "line 1 of the input: maximum",
        ),
        ("in.txt", b"caf\xe9", "is not UTF-8: byte 0xe9 at 3"),
        ("in.txt", "x" * (MAX_PROMPT + 1), "the prompt is over 8 MiB"),
    ],
    ids=["torn", "unknown field", "same id", "unknown column", "too many cells", "nested", "bytes", "too long"],
)
def test_input_that_cannot_be_used_is_refused_before_anything_is_asked(
    work: Work, name: str, text: str | bytes, message: str
) -> None:
    done = work.run(work.prompts(text, name))
    assert done.code == 2
    assert message in done.err
    assert work.server.requests == ()


def test_run_again_it_goes_on_where_it_stopped_even_if_lines_were_added_and_moved(work: Work) -> None:
    work.run(work.prompts("one\ntwo\nsame\nsame\n"))
    done = work.run(work.prompts("new\nsame\ntwo\nsame\nsame\none\n"))
    assert done.err.startswith("2 answered, 0 failed, 4 done before, 0 not asked;")
    assert sorted(result["text"] for result in work.results) == ["new", "one", "same", "same", "same", "two"]
    assert len({result["id"] for result in work.results}) == 6


def test_a_repeated_prompt_has_a_numbered_id_which_skips_those_that_are_taken(work: Work) -> None:
    key = "9ef1ab3b9eea132a"
    lines: list[dict[str, str]] = [{"prompt": "same"}, {"id": f"{key}-3", "prompt": "x"}, *[{"prompt": "same"}] * 3]
    prompts = read_prompts(work.prompts("\n".join(map(json.dumps, lines)), "in.jsonl"), None)
    assert [prompt.key for prompt in prompts] == [key, f"{key}-3", f"{key}-2", f"{key}-4", f"{key}-5"]


def test_a_prompt_that_is_repeated_often_is_numbered_on_from_its_last_number() -> None:
    class Taken(dict[str, int]):
        looked_up = 0

        def __contains__(self, key: object) -> bool:
            self.looked_up += 1
            return super().__contains__(key)

    taken, numbers = Taken(), Counter[str]()
    for line in range(100):
        taken[_bulk_input._hash(_bulk_input._Entry("same"), taken, numbers)] = line
    assert len(taken) == 100
    assert taken.looked_up < 300


@pytest.mark.parametrize("tail", [b'{"id":"6b86', b"{", b"\0" * 100], ids=repr)
def test_a_torn_last_line_is_removed_and_its_prompt_is_asked_again(work: Work, tail: bytes) -> None:
    source = work.prompts("one\ntwo\n")
    work.run(source)
    first = work.out.read_bytes().splitlines(keepends=True)[0]
    work.out.write_bytes(first + tail)
    done = work.run(source)
    assert done.code == 0
    assert "incomplete. Its prompt is asked again.\n1 answered, 0 failed, 1 done before" in done.err
    assert len(work.texts) == len(work.results) == 2


@pytest.mark.parametrize("content", ["my notes", "my notes\n", '{"a": 1}\n'])
def test_a_file_of_another_kind_is_left_as_it_is(work: Work, content: str) -> None:
    work.out.write_text(content)
    done = work.run(work.prompts("one"))
    assert (done.code, work.out.read_text()) == (1, content)
    assert "is no result of bulk. Choose another file." in done.err


def test_in_and_out_must_not_be_the_same(work: Work) -> None:
    done = work.run(work.prompts("one", "out.jsonl"))
    assert (done.code, done.err) == (2, "Error: IN and OUT are the same file\n")


def test_out_that_cannot_be_written_is_an_error(work: Work, tmp_path: Path) -> None:
    done = oa_protocol("bulk", work.prompts("one"), str(tmp_path / "no" / "out"), env=credentials(work.server))
    assert (done.code, done.err) == (1, f"Error: {tmp_path}/no/out can't be used: No such file or directory\n")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_results_that_could_not_be_read_again_are_refused(work: Work, device: str) -> None:
    done = oa_protocol("bulk", work.prompts("one"), device, env=credentials(work.server))
    assert (done.code, work.server.requests) == (1, ())
    assert f"{device} is no file that the next run could read" in done.err


class FullDisk:
    """The module ``os`` if the disk is full."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_it_and_the_chats_are_deleted(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bulk_output, "os", FullDisk())
    done = work.run(work.prompts("one\ntwo\n"))
    assert done.code == 1
    assert f"Error: {work.out}: No space left on device" in done.err
    assert work.server.chats == ()


def test_a_failure_is_a_result_and_is_asked_again_only_if_you_say_so(work: Work) -> None:
    work.server.script(Fault("request", before=REFUSAL))
    source = work.prompts("one\ntwo\n")
    done = work.run(source, "--concurrency", "1")
    assert done.code == 5
    assert "Error: 1 of 2 prompts failed. --retry-failed asks them again." in done.err
    assert {result["error"] and result["error"]["type"] for result in work.results} == {None, "ApiError"}
    assert work.run(source).err.startswith("0 answered, 0 failed, 2 done before")
    done = work.run(source, "--retry-failed")
    assert (done.code, len(work.results)) == (0, 3)
    assert sorted(work.texts.values()) == ["one", "two"]  # the last result of an id counts


def test_a_wrong_password_ends_it(work: Work) -> None:
    environment = credentials(work.server) | {"OA_COOKIES": "next-auth.session-token=wrong"}
    done = oa_protocol("bulk", work.prompts("one\n" * 50), str(work.out), env=environment)
    assert done.code == 3
    assert "0 answered, 0 failed, 0 done before, 50 not asked" in done.err
    assert work.results == []


def test_json_prints_the_summary(work: Work) -> None:
    (summary,) = work.run(work.prompts("one\ntwo\n"), "--json").events
    assert summary.pop("seconds") > 0
    assert summary == {
        "answered": 2, "failed": 0, "done_before": 0, "not_asked": 0, "left_behind": 0, "out": str(work.out)
    }  # fmt: skip


def test_141_the_summary_cannot_be_printed_because_stdout_is_closed(work: Work) -> None:
    done = work.run_without_a_reader(work.prompts("one\ntwo\n"), "--json")
    assert done.code == 141
    assert done.err.startswith("2 answered, 0 failed, 0 done before, 0 not asked;")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([Fault("create", before=Reply(403))], 3),
        ([Fault("request", before=REFUSAL)], 5),
        ([Fault("delete", before=Reply(403), times=9)], 6),
    ],
    ids=["credentials", "failed", "left"],
)
def test_a_closed_stdout_hides_no_other_exit_code(work: Work, faults: list[Fault], code: int) -> None:
    work.server.script(*faults)
    done = work.run_without_a_reader(work.prompts("one"), "--json")
    assert done.code == code
    assert " answered, " in done.err


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
@pytest.mark.parametrize(
    ("faults", "code", "said"),
    [([], 1, "1 answered, 0 failed"), ([Fault("request", before=REFUSAL)], 5, "0 answered, 1 failed")],
    ids=["answered", "failed"],
)
def test_a_full_stdout_is_an_error_and_hides_no_other_exit_code(
    work: Work, faults: list[Fault], code: int, said: str
) -> None:
    work.server.script(*faults)
    with FULL.open("wb") as full:
        done = ended(work.start(work.prompts("one"), "--json", stdout=full.fileno()))
    assert (done.code, said in done.err) == (code, True)
    assert done.err.endswith("Error: stdout: No space left on device\n")


@pytest.mark.parametrize("api", ["website", "inference"])
def test_several_accounts_share_the_work(work: Work, tmp_path: Path, api: str) -> None:
    lines = ["# accounts", ""]
    for name in ("a", "b"):
        account = work.server.account(name)
        cookies = "; ".join(f"{key}={value}" for key, value in account.cookies.items())
        lines.append(cookies if api == "website" else account.token)
    accounts = tmp_path / "accounts"
    accounts.touch(mode=0o600)
    accounts.write_text("\n".join(lines))
    work.server.script(Answer(then=Hold(), times=2))
    options = ["--accounts", str(accounts), "--api", api, "--concurrency", "1"]
    environment = credentials(work.server) | {"OA_COOKIES": "", "OA_TOKEN": ""}
    process = started(["bulk", work.prompts("one\ntwo\nthree\n"), str(work.out), *options], environment)
    work.server.wait_for("request", 2)
    work.server.release()
    assert ended(process).code == 0
    assert sorted(work.texts.values()) == ["one", "three", "two"]
    assert {result["account"] for result in work.results} == {1, 2}


def test_the_other_accounts_go_on_if_one_is_refused(work: Work, tmp_path: Path) -> None:
    accounts = tmp_path / "accounts"
    accounts.touch(mode=0o600)
    accounts.write_text(f"{work.server.account('a').token}\n{work.server.token}-no-more\n")
    work.server.script(Answer(then=Hold()))
    options = ["--accounts", str(accounts), "--api", "inference", "--concurrency", "1"]
    environment = credentials(work.server) | {"OA_COOKIES": "", "OA_TOKEN": ""}
    process = started(["bulk", work.prompts("one\ntwo\nthree\n"), str(work.out), *options], environment)
    work.server.wait_for("create", 2)
    work.server.release()
    done = ended(process)
    assert (done.code, "Account 2 in --accounts can't be used. The others go on." in done.err) == (3, True)
    assert "2 answered, 0 failed, 0 done before, 1 not asked" in done.err
    assert {result["account"] for result in work.results} == {1}


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_accounts_that_others_can_read_are_refused(work: Work, tmp_path: Path) -> None:
    accounts = tmp_path / "accounts"
    accounts.write_text("a-secret")
    accounts.chmod(0o640)
    done = work.run(work.prompts("one"), "--accounts", str(accounts))
    assert (done.code, "Run: chmod 600" in done.err, "a-secret" in done.err) == (2, True, False)
    accounts.chmod(0o600)
    accounts.write_text("\ufeff# none\n", "utf-8")
    assert "has no accounts in it" in work.run(work.prompts("one"), "--accounts", str(accounts)).err
    accounts.write_text("a-secret")
    done = oa_protocol("bulk", work.prompts("one"), str(work.out), "--accounts", str(accounts))
    assert "--accounts needs a server" in done.err
    (tmp_path / "cookies").touch()
    done = work.run(work.prompts("one"), "--accounts", str(accounts), "--cookies", str(tmp_path / "cookies"))
    assert "--accounts can't go with --cookies" in done.err


def test_a_second_process_on_the_same_results_is_refused(work: Work) -> None:
    work.server.script(Answer(then=Hold()))
    source = work.prompts("one")
    process = work.start(source)
    work.server.wait_for("request")
    done = work.run(source)
    assert (done.code, done.err) == (
        1, f"Error: another process writes to {work.out}. Wait for it, or choose another file.\n"
    )  # fmt: skip
    work.server.release()
    assert ended(process).code == 0


def test_ctrl_c_finishes_what_runs_and_a_second_run_asks_the_rest(work: Work) -> None:
    work.server.script(Answer(then=Hold(), times=2))
    source = work.prompts("".join(f"{number}\n" for number in range(9)))
    process = work.start(source, "--concurrency", "2")
    work.server.wait_for("prompt", 2)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while b"Finishing the prompts that are under way: 2." not in process.stderr.readline():
        pass
    work.server.release()
    done = ended(process)
    assert (done.code, done.out) == (130, "")
    assert "2 answered, 0 failed, 0 done before, 7 not asked" in done.err
    assert (len(work.results), work.server.chats) == (2, ())
    assert work.run(source).err.startswith("7 answered, 0 failed, 2 done before")


def interrupted_twice(process: subprocess.Popen[bytes]) -> Done:
    """Send a second Ctrl-C when the first one has been noticed."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while b"Finishing" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    return ended(process)


def test_a_second_ctrl_c_quits_at_once_and_names_the_chats(work: Work) -> None:
    work.server.script(Answer(then=Never(), times=2))
    process = work.start(work.prompts("one\ntwo\nthree\n"), "--concurrency", "2")
    work.server.wait_for("prompt", 2)
    done = interrupted_twice(process)
    assert done.code == 130
    for chat in work.server.chats:
        assert f"Maybe left behind: chat {chat.id}" in done.err
    assert "run `oa-protocol sweep`" in done.err


def test_a_second_ctrl_c_also_names_the_chats_that_were_left_before(work: Work) -> None:
    refused, lost = Fault("delete", before=Reply(403), times=9), Fault("create", after=Reset(), times=3, skip=1)
    work.server.script(refused, lost, Answer(), Answer(then=Never()))
    process = work.start(work.prompts("one\ntwo\n"), "--concurrency", "1", "--journal", "")
    work.server.wait_for("prompt", 2)
    done = interrupted_twice(process)
    assert done.code == 130
    left, *unknown, running = work.server.chats
    for name, count in ((left.id, 1), ("(id unknown)", len(unknown)), (running.id, 1)):
        assert done.err.count(f"Maybe left behind: chat {name}") == count > 0
    assert "sweep" not in done.err


@pytest.mark.clause("OA-9.1")
def test_a_killed_run_loses_nothing(work: Work) -> None:
    work.server.script(Answer(), Answer(then=Hold(), times=2))
    source = work.prompts("".join(f"{number}\n" for number in range(6)))
    process = work.start(source, "--concurrency", "2")
    work.server.wait_for("request", 3)
    process.kill()
    ended(process)
    work.server.release()
    assert work.run(source).code == 0
    assert sorted(work.texts.values()) == [str(number) for number in range(6)]
    assert len(work.results) == 6
    assert oa_protocol("sweep", "--grace", "0", env=credentials(work.server)).code == 0
    assert work.server.chats == ()


def test_at_a_terminal_one_sees_how_far_it_is_and_who_waits(work: Work, terminal: Pseudo) -> None:
    work.server.script(Fault("request", before=REFUSAL), Answer(), Answer(then=Hold(), times=2))
    source = work.prompts("".join(f'{{"id": "key {number}", "prompt": "x"}}\n' for number in range(4)), "in.jsonl")
    environment = credentials(work.server) | TERMINAL | {"COLUMNS": "160"}
    process = started(["bulk", source, str(work.out), "--concurrency", "3"], environment, stderr=terminal.end)
    terminal.wait_for("2/4")
    terminal.wait_for("1 failed; waiting for a worker: key")
    work.server.release()
    assert ended(process).code == 5
    assert "3 answered, 1 failed, 0 done before, 0 not asked;" in terminal.rest()
