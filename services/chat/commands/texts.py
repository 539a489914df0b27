"""Texts to be summed up or translated: a prompt from a file, and a reply to it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mesh.identity.principal import Principal
from services.chat.commands.replies import Replies
from services.chat.domain.conversation import Ask, Terms, Turn
from services.chat.domain.generation import Generation

AUTO = "auto"
_FOLDER = Path(__file__).parent.parent / "prompts"
_WORDS = 200


def read_prompts(folder: Path = _FOLDER) -> dict[str, Template]:
    """The prompts in `folder`, by the names of their files."""
    return {
        path.stem: Template(path.read_text(encoding="utf-8").strip())
        for path in folder.glob("*.txt")
    }


@dataclass(slots=True)
class Texts:
    """Replies about a text. `replies` takes texts of the length that is allowed here."""

    replies: Replies
    prompts: Mapping[str, Template]

    @asynccontextmanager
    async def summary(
        self,
        caller: Principal,
        terms: Terms,
        text: str,
        *,
        style: str,
        words: int | None,
        model: str,
    ) -> AsyncIterator[Generation]:
        """A running generation that sums up `text`. Raises as `Replies.reply` does."""
        prompt = self.prompts[f"summarize_{style}"].substitute(max_length=words or _WORDS)
        async with self.replies.reply(caller, terms, self._ask(prompt, text, model)) as made:
            yield made

    @asynccontextmanager
    async def translation(
        self,
        caller: Principal,
        terms: Terms,
        text: str,
        *,
        source: str,
        target: str,
        model: str,
    ) -> AsyncIterator[Generation]:
        """A running generation that translates `text`. Raises as `Replies.reply` does."""
        name = "translate_auto" if source == AUTO else "translate"
        prompt = self.prompts[name].substitute(source_language=source, target_language=target)
        async with self.replies.reply(caller, terms, self._ask(prompt, text, model)) as made:
            yield made

    def _ask(self, prompt: str, text: str, model: str) -> Ask:
        text = self.replies.limits.cleaned(text, "text")
        turns = (Turn("system", prompt), Turn("user", text))
        return Ask("", turns, "", None, model, None, None, store=False)
