"""A real headless Chromium, driven by its own protocol (Chrome DevTools Protocol)."""

import asyncio
import base64
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.support import eventually

_QUIET = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
    "--window-size=1200,1600",
)


class Page:
    """A tab: what it is told to do, and all that it asked for or complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def attach(self) -> None:
        made = await self.ask("Target.createTarget", url="about:blank")
        target = made["targetId"]
        attached = await self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.ask(f"{domain}.enable")

    async def ask(self, method: str, **params: Any) -> Any:
        """The result of one command."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params, **self._session}
        await self._socket.send_json(command)
        return await asyncio.wait_for(answer, 20)

    async def listen(self) -> None:
        """Reads what the browser says until it ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if "error" in said:
                    answer.set_exception(AssertionError(said["error"]["message"]))
                else:
                    answer.set_result(said["result"])
            else:
                self._note(said["method"], said.get("params", {}))

    def _note(self, event: str, told: dict[str, Any]) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "assert"):
                self.complaints.append(str(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.complaints.append(str(told["entry"]))

    async def value(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = await self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def done(self, script: str) -> Any:
        """What the promise of an expression in the page comes to."""
        done = await self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def find(self, selector: str, text: str = "") -> None:
        """Waits until an element is there whose text holds `text`."""
        script = f"[...document.querySelectorAll({selector!r})].some(e => e.innerText.includes({text!r}))"
        try:
            await eventually(lambda: self.value(script), within=20)
        except AssertionError:
            there = await self.value("document.body.innerText.slice(0, 2000)")
            raise AssertionError(f"no {selector} with {text!r} in: {there}") from None

    async def click(self, selector: str) -> None:
        """Clicks the first such element, once it is there."""
        await self.find(selector)
        await self.value(f"document.querySelector({selector!r}).click()")

    async def type(self, selector: str, text: str) -> None:
        """Types into the first such field, once it is there."""
        await self.find(selector)
        await self.value(f"document.querySelector({selector!r}).focus()")
        await self.ask("Input.insertText", text=text)

    async def picture(self, path: Path) -> None:
        """Writes what is seen as a PNG."""
        shot = await self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def origins(self) -> set[str]:
        """Where the page asked for anything; `data:` and `blob:` are within itself."""
        parts = (urlsplit(url) for url in self.requests)
        return {f"{at.scheme}://{at.netloc}" for at in parts if at.scheme not in ("data", "blob")}


@asynccontextmanager
async def opened(program: str, folder: Path) -> AsyncIterator[Page]:
    """A tab of a new browser, whose files lie in `folder`."""
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    process = await asyncio.create_subprocess_exec(
        *(program, *_QUIET, *root, f"--user-data-dir={folder}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port, path = await eventually(lambda: _address(folder), within=30)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            await page.attach()
            yield page
            await page.ask("Browser.close")
            await listening
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _address(folder: Path) -> list[str]:
    told = folder / "DevToolsActivePort"
    lines = told.read_text().splitlines() if told.exists() else []
    return lines if len(lines) == 2 else []
