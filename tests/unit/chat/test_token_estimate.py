"""Tokens of texts that nobody counted, against what OpenAI's o200k_base makes of them."""

# ruff: noqa: RUF001 - what looks like another letter is one of another script

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chat.domain.token_estimate import TokenCounter, at_least, estimate, rounded

# Each with its tokens by o200k_base, and by the older cl100k_base.
SAMPLES = {
    "english": (
        "A stream of tokens is easy to start and hard to end well. When the reader leav"
        "es, the provider has to hear of it at once; when the provider falls silent, th"
        "e reader has to be told, and what was written until then must not be lost. Mos"
        "t of the work in a service like this one is in the endings: who pays for half "
        "an answer, who may ask for the rest of it, and what remains in the books when "
        "a machine dies in the middle of a sentence.",
        101,
        101,
    ),
    "german": (
        "Ein Strom von Wörtern ist leicht begonnen und schwer gut beendet. Geht der Les"
        "er, so muss der Anbieter sofort davon erfahren; schweigt der Anbieter, so muss"
        " man es dem Leser sagen, und was bis dahin geschrieben wurde, darf nicht verlo"
        "ren gehen. Die meiste Arbeit an einem solchen Dienst steckt in den Enden: Wer "
        "bezahlt eine halbe Antwort, wer darf nach dem Rest fragen, und was steht in de"
        "n Büchern, wenn eine Maschine mitten im Satz stirbt?",
        97,
        120,
    ),
    "french": (
        "Un flux de mots se commence sans peine et se termine rarement bien. Si le lect"
        "eur s'en va, le fournisseur doit l'apprendre aussitôt ; si le fournisseur se t"
        "ait, il faut prévenir le lecteur, et rien de ce qui a été écrit ne doit se per"
        "dre. L'essentiel du travail d'un tel service se trouve dans les fins : qui pai"
        "e la moitié d'une réponse, qui peut en demander la suite, et que reste-t-il da"
        "ns les comptes quand une machine meurt au milieu d'une phrase ?",
        106,
        123,
    ),
    "spanish": (
        "Un flujo de palabras se empieza con facilidad y rara vez termina bien. Cuando "
        "el lector se marcha, el proveedor debe saberlo enseguida; cuando el proveedor "
        "calla, hay que avisar al lector, y lo que se escribió hasta entonces no debe p"
        "erderse. Casi todo el trabajo de un servicio como este está en los finales: qu"
        "ién paga media respuesta, quién puede pedir el resto y qué queda en los libros"
        " cuando una máquina muere en mitad de una frase.",
        96,
        116,
    ),
    "russian": (
        "Поток слов легко начать и трудно хорошо закончить. Когда читатель уходит, пост"
        "авщик должен узнать об этом сразу; когда поставщик замолкает, об этом надо ска"
        "зать читателю, и то, что уже написано, не должно пропасть. Почти вся работа та"
        "кой службы — в концовках: кто платит за половину ответа, кто может попросить о"
        "стальное и что останется в книгах, если машина умрёт посреди предложения.",
        97,
        172,
    ),
    "chinese": (
        "一串文字很容易开始，却很难好好结束。读者离开时，供应商必须马上知道；供应商沉默时"
        "，读者必须被告知，而在此之前写下的内容不能丢失。这类服务的大部分工作都在结尾：谁"
        "为半个回答付钱，谁可以要求剩下的部分，当一台机器在一句话的中间停止工作时，账本里"
        "还剩下什么。价格按百万个词元计算，预算以美元为单位，任何一次调用都不能超过它。",
        119,
        174,
    ),
    "japanese": (
        "言葉の流れは始めるのは簡単だが、うまく終わらせるのは難しい。読み手が去れば、提供"
        "者はすぐにそれを知らなければならない。提供者が黙れば、読み手に伝える必要があり、"
        "それまでに書かれたものは失われてはならない。このようなサービスの仕事の大半は終わ"
        "り方にある。半分の答えに誰が支払うのか、残りを誰が求められるのか、文の途中で機械"
        "が止まったとき帳簿に何が残るのか。",
        146,
        202,
    ),
    "korean": (
        "말의 흐름은 시작하기는 쉽지만 잘 끝내기는 어렵다. 독자가 떠나면 제공자"
        "는 곧바로 그것을 알아야 하고, 제공자가 침묵하면 독자에게 알려야 하며,"
        " 그때까지 쓰인 것은 사라져서는 안 된다. 이런 서비스의 일은 대부분 끝"
        "맺음에 있다. 반쪽짜리 답은 누가 지불하는지, 나머지는 누가 요청할 수 "
        "있는지, 문장 한가운데에서 기계가 멈추면 장부에는 무엇이 남는지가 문제다"
        ".",
        122,
        201,
    ),
    "arabic": (
        "من السهل أن يبدأ تدفق الكلمات ومن الصعب أن ينتهي جيدا. عندما يغادر القارئ يجب "
        "أن يعلم المزود بذلك فورا، وعندما يصمت المزود يجب إخبار القارئ، ولا يجوز أن يضي"
        "ع ما كتب حتى تلك اللحظة. معظم العمل في خدمة كهذه يكمن في النهايات: من يدفع ثمن"
        " نصف الجواب، ومن يحق له أن يطلب البقية، وماذا يبقى في الدفاتر عندما تتوقف آلة "
        "في منتصف جملة.",
        107,
        233,
    ),
    "hindi": (
        "शब्दों की धारा शुरू करना आसान है और उसे ठीक से समाप्त करना कठिन। जब पाठक चला ज"
        "ाता है तो प्रदाता को तुरंत पता चलना चाहिए; जब प्रदाता चुप हो जाता है तो पाठक क"
        "ो बताना पड़ता है, और तब तक जो लिखा गया वह खोना नहीं चाहिए। ऐसी सेवा का अधिकतर "
        "काम अंत में होता है: आधे उत्तर का भुगतान कौन करेगा, बाकी कौन माँग सकता है, और "
        "वाक्य के बीच में मशीन रुक जाए तो बही में क्या बचता है।",
        110,
        357,
    ),
    "greek": (
        "Μια ροή λέξεων αρχίζει εύκολα και δύσκολα τελειώνει καλά. Όταν ο αναγνώστης φε"
        "ύγει, ο πάροχος πρέπει να το μάθει αμέσως· όταν ο πάροχος σωπαίνει, πρέπει να "
        "το μάθει ο αναγνώστης, και όσα γράφτηκαν ως τότε δεν πρέπει να χαθούν. Η περισ"
        "σότερη δουλειά μιας τέτοιας υπηρεσίας βρίσκεται στα τέλη.",
        101,
        262,
    ),
    "hebrew": (
        "קל להתחיל זרם של מילים וקשה לסיים אותו היטב. כשהקורא עוזב, הספק חייב לדעת על כ"
        "ך מיד; כשהספק שותק, צריך לספר לקורא, ומה שנכתב עד אז אסור שיאבד. רוב העבודה בש"
        "ירות כזה היא בסופים: מי משלם על חצי תשובה ומי רשאי לבקש את השאר.",
        82,
        219,
    ),
    "thai": (
        "กระแสของถ้อยคำเริ่มได้ง่ายแต่จบให้ดีได้ยาก เมื่อผู้อ่านจากไป ผู้ให้บริการต้องร"
        "ู้ทันที เมื่อผู้ให้บริการเงียบไป ต้องบอกผู้อ่าน และสิ่งที่เขียนไว้แล้วต้องไม่ส"
        "ูญหาย งานส่วนใหญ่ของบริการแบบนี้อยู่ที่ตอนจบ ใครจ่ายค่าคำตอบครึ่งเดียว และใครข"
        "อส่วนที่เหลือได้",
        95,
        224,
    ),
    "python": (
        "async def follow(self, after: int = 0) -> AsyncGenerator[Event]:\n"
        '    """Yields the events past `after`, the last of them `Last`."""\n'
        "    while True:\n"
        "        if after < self.seq:\n"
        "            first = after - self.base\n"
        '            text = "".join(self._parts[first:])\n'
        "            after = self.seq\n"
        "            yield Delta(after, text)\n"
        "        elif self.ending is not None:\n"
        "            yield Last(self.seq + 1, self.ending)\n"
        "            return\n"
        "        else:\n"
        "            await self._changed.wait()\n",
        113,
        113,
    ),
    "json": (
        '{"id": "chatcmpl-7d0f2a", "object": "chat.completion", "created": 1795'
        '843200, "model": "gpt-4o-mini", "choices": [{"index": 0, "message": {"'
        'role": "assistant", "content": "Yes."}, "finish_reason": "stop"}], "us'
        'age": {"prompt_tokens": 25, "completion_tokens": 2, "total_tokens": 27'
        "}}",
        100,
        100,
    ),
    "emoji": (
        "Great work today 🎉🎉 the release is out 🚀 and nobody was paged at night 😴. Than"
        "ks to everyone 🙏 for the reviews 👀 and the patience ❤️!",
        38,
        43,
    ),
    "numbers": (
        "3.14159 26535 89793 23846 26433 83279 50288 41971 69399 37510; 2026-11-28T05:1"
        "2:53Z 192.168.0.17 0xdeadbeef 1,000,000 42 17 4096 65536",
        76,
        76,
    ),
}


@pytest.mark.parametrize(("text", "tokens"), [each[:2] for each in SAMPLES.values()], ids=SAMPLES)
def test_an_estimate_is_within_a_fifth_of_the_count(text: str, tokens: int):
    assert abs(estimate(text) / tokens - 1) < 0.2


@pytest.mark.parametrize(
    ("text", "tokens"), [(text, min(both)) for text, *both in SAMPLES.values()], ids=SAMPLES
)
def test_there_are_never_fewer_tokens_than_words(text: str, tokens: int):
    assert 0 < at_least(text) <= tokens


# Each of these is one token of o200k_base.
@pytest.mark.parametrize("token", [" " * 64, "-" * 64, " responsibilities", "\n\n"])
def test_of_long_tokens_no_more_are_taken_for_sure_than_a_few_each(token: str):
    assert at_least(token * 100) <= 300


def test_repeated_phrases_are_no_overrun():
    assert at_least("中华人民共和国" * 100) <= 100


@given(st.lists(st.text(max_size=30), max_size=40), st.integers(0, 5))
def test_a_text_is_counted_alike_in_any_pieces(pieces: list[str], looks: int):
    counter = TokenCounter()
    for at, piece in enumerate(pieces):
        counter.add(piece)
        if looks and at % looks == 0:
            assert counter.tokens >= 0
    text = "".join(pieces)
    assert abs(counter.tokens - estimate(text)) <= 1
    # In portions it may look more closely, but never counts more than words and phrases.
    phrases = sum("\u3000" <= each <= "\uffef" for each in text)
    assert counter.sure <= sum(1 + len(word) // 24 for word in text.split()) + phrases // 8


def test_it_says_when_a_look_is_worth_it_however_often_it_is_asked():
    counter = TokenCounter()
    worth = []
    for _ in range(400):
        worth.append(counter.add("word "))
        assert counter.tokens == len(worth)
    assert sum(worth) == 5
    assert counter.sure == 400


def test_nothing_has_no_tokens_and_the_least_has_one():
    assert (rounded(estimate("")), rounded(estimate("a"))) == (0, 1)
    assert not TokenCounter().add("")
