"""The engine in Qt's event loop, with PySide6's sockets and h11. Set OA_URL and OA_COOKIES, and run it."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import ceil
from time import monotonic
from urllib.parse import urlsplit

import h11
from PySide6.QtCore import QByteArray, QCoreApplication, QEventLoop, QObject, QSocketNotifier, QTimer, Signal
from PySide6.QtNetwork import QAbstractSocket, QSslSocket

from oa_protocol import Conversation, Credentials, MaybeSent, NotSent, Website, load_cookies
from oa_protocol.engine.events import Event, Failed
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Prompt,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import CloseStream, Exchange, Intent, LoadCredentials, OpenStream


class Driver(QObject):
    """Carries out what a conversation asks for, one thing after the other. The one timer is its deadline.

    Nothing here waits. ``prompt`` and ``close`` return at once, and may be called from any slot.
    """

    happened = Signal(object)
    """An event of the conversation."""
    idle = Signal()
    """The turn is over."""
    finished = Signal()
    """The conversation is over. What is left is in its ``leaked``."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self.conversation = conversation
        self.timer = QTimer(self, singleShot=True)
        self.timer.timeout.connect(self.step)
        self.intent: Intent | None = None
        self.call: Call | None = None
        self.stream: Call | None = None
        self.leaving = False
        self.error: BaseException | None = None

    def prompt(self, text: str) -> None:
        self.handle(Prompt(text))

    def close(self) -> None:
        """Delete the chat. You can call this in every phase."""
        self.leaving = True
        self.handle(Close())

    def handle(self, what: Input) -> None:
        """Hand in what happened, drop what is no longer outstanding, and go on when Qt is back in its loop."""
        events = self.conversation.handle(what, monotonic())
        if self.call and self.conversation.outstanding is not self.intent:
            self.call.drop()
            self.call = None
        if self.stream and not self.conversation.has_stream:
            self.stream.drop()
            self.stream = None
        self.timer.start(0)
        for event in events:
            self.happened.emit(event)

    def step(self) -> None:
        """Set the timer, and do one thing."""
        conversation = self.conversation
        if conversation.is_over:
            self.finished.emit()
            return
        intent = conversation.next_intent(monotonic())
        deadline = conversation.deadline
        if deadline is not None:
            self.timer.start(max(0, ceil((deadline - monotonic()) * 1000)))
        if intent is not None:
            self.intent = intent
            try:
                self.carry_out(intent)
            except Exception as error:  # of ours: Qt would only print it, and wait
                self.error = error
                self.handle(Abandon() if self.leaving else Close())
        elif deadline is not None and deadline <= monotonic():
            self.handle(TimePassed())
        elif deadline is None and not conversation.has_stream:
            self.idle.emit()

    def carry_out(self, intent: Intent) -> None:
        match intent:
            case Exchange():
                self.call = Call(self, intent)
            case LoadCredentials():
                self.handle(CredentialsFound(None))  # there are no others
            case CloseStream():
                self.handle(StreamEnded())

    def take(self, call: "Call", what: Input) -> None:
        """Take what came of a call, unless it has been dropped."""
        if call is self.call and isinstance(what, StreamOpened):
            self.call, self.stream = None, call
            self.handle(what)
        elif call in (self.call, self.stream):
            self.handle(what)


class Call(QObject):
    """One request on a connection of its own.

    ``QNetworkAccessManager`` can't be used here. If a connection breaks, it sends a request again, and that can't be
    switched off.
    """

    def __init__(self, driver: Driver, exchange: Exchange) -> None:
        super().__init__(driver)
        self.driver = driver
        self.exchange = exchange
        self.http = h11.Connection(h11.CLIENT)
        self.failure: type[NotSent | MaybeSent] = NotSent
        self.head: h11.Response | None = None
        self.body = b""
        self.is_stream = False
        self.socket = QSslSocket(self)
        self.socket.readyRead.connect(self.on_data)
        self.socket.errorOccurred.connect(self.on_error)
        url = urlsplit(exchange.request.url)
        if url.scheme == "https":
            self.socket.encrypted.connect(self.on_connected)
            self.socket.connectToHostEncrypted(url.hostname or "", url.port or 443)
        else:
            self.socket.connected.connect(self.on_connected)
            self.socket.connectToHost(url.hostname or "", url.port or 80)

    def on_connected(self) -> None:
        self.failure = MaybeSent
        request = self.exchange.request
        fixed = [
            ("host", urlsplit(request.url).netloc),
            ("connection", "close"),
            ("content-length", str(len(request.body))),
        ]
        head = h11.Request(method=request.method, target=request.target, headers=[*fixed, *request.headers])
        for part in (head, h11.Data(data=request.body), h11.EndOfMessage()):
            self.socket.write(QByteArray(self.http.send(part) or b""))

    def on_data(self) -> None:
        self.receive(bytes(self.socket.readAll().data()))

    def on_error(self, error: QAbstractSocket.SocketError) -> None:
        if error is QAbstractSocket.SocketError.RemoteHostClosedError and self.failure is MaybeSent:
            self.receive(b"")
        else:
            self.fail(self.socket.errorString())

    def receive(self, data: bytes) -> None:
        try:
            self.http.receive_data(data)
            while (event := self.http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self.on_http(event)
                if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    break
        except h11.RemoteProtocolError as error:
            self.fail(str(error))

    def on_http(self, event: object) -> None:
        match event:
            case h11.Response():
                self.head = event
                self.is_stream = isinstance(self.exchange, OpenStream) and event.status_code == 200
                if self.is_stream:
                    self.driver.take(self, StreamOpened())
            case h11.Data() if self.is_stream:
                self.driver.take(self, StreamData(bytes(event.data)))
            case h11.Data():
                self.body += event.data
            case h11.EndOfMessage() if self.is_stream:
                self.driver.take(self, StreamEnded())
            case h11.EndOfMessage() if self.head:
                headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.head.headers]
                self.driver.take(self, ReplyReceived(self.head.status_code, headers, self.body))
            case _:
                pass

    def fail(self, why: str) -> None:
        self.driver.take(self, StreamEnded() if self.is_stream else ExchangeFailed(self.failure(why)))

    def drop(self) -> None:
        self.socket.abort()
        self.deleteLater()


def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event; leave if ``tell`` returns True. In the end the chat is deleted, or named."""
    application = QCoreApplication.instance() or QCoreApplication(sys.argv)
    driver, remaining, loop = Driver(conversation), list(prompts), QEventLoop(application)

    def on_event(event: Event) -> None:
        try:
            if isinstance(event, Failed):
                raise event.error
            if tell(event):
                driver.close()
        except Exception as error:
            driver.error = driver.error or error
            driver.close()

    def go_on() -> None:
        if remaining and conversation.awaits_prompt:
            driver.prompt(remaining.pop(0))
        else:
            driver.close()

    def interrupt() -> None:
        driver.error = driver.error or KeyboardInterrupt()
        driver.close()

    driver.happened.connect(on_event)
    driver.idle.connect(go_on)
    driver.finished.connect(loop.quit)
    with ExitStack() as stack:
        call_on_ctrl_c(interrupt, stack)
        QTimer.singleShot(0, go_on)
        loop.exec()
    for leaked in conversation.leaked:
        print("left behind:", leaked, file=sys.stderr)
    if driver.error:
        raise driver.error


def ignore(*_: object) -> None:
    """Do nothing."""


def call_on_ctrl_c(interrupt: Callable[[], None], stack: ExitStack) -> None:
    """Call ``interrupt`` in Qt's event loop. Python looks at signals only when its own code runs, hence the socket."""
    woken, wakes = (stack.enter_context(each) for each in socket.socketpair())
    wakes.setblocking(False)
    notifier = QSocketNotifier(woken.fileno(), QSocketNotifier.Type.Read)
    notifier.activated.connect(lambda: interrupt() if signal.SIGINT in woken.recv(64) else None)
    stack.callback(notifier.setEnabled, False)
    stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wakes.fileno()))
    stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, ignore))


if __name__ == "__main__":
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    converse(Conversation(Website(os.environ["OA_URL"]), credentials), ["Hello", "And again?"], print)
