"""Several conversations at once, in a plain thread pool. Set OA_URL and OA_COOKIES, and run it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from oa_protocol import sync
from oa_protocol.engine.events import Event


def converse(client: sync.Client, prompts: Sequence[str], tell: Callable[[Event], object]) -> list[str]:
    """Ask, tell each event, and return the answers; runs in a thread of the pool.

    The chat is the thread's own. It is deleted at the end of the block, however the block ends.
    """
    answers: list[str] = []
    with client.chat() as chat:
        for prompt in prompts:
            answer = chat.send(prompt)
            for event in answer:
                tell(event)
            answers.append(answer.text)
    return answers


def converse_all(
    client: sync.Client, conversations: Sequence[Sequence[str]], tell: Callable[[Event], object]
) -> list[list[str]]:
    """Hold all conversations, four at a time; return their answers, in this order.

    If one fails, or this thread is interrupted, the client is closed first. That ends the others' waits and deletes
    their chats, so that the pool's threads have nothing left to wait for.
    """
    with ThreadPoolExecutor(4) as pool, client:
        running = [pool.submit(converse, client, prompts, tell) for prompts in conversations]
        try:
            for each in as_completed(running):
                each.result()  # raises as soon as any one fails
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that have not begun never do
            raise
        return [each.result() for each in running]


if __name__ == "__main__":
    questions = [["Hello", "And again?"], ["What is a pool?"], ["What is a thread?", "And what is a lock?"]]
    for answers in converse_all(sync.Client(), questions, lambda event: None):
        print(*answers, sep="\n", end="\n\n")
