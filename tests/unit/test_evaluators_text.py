"""Refusal, language, readability and format on small labelled cases."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Message

from services.evaluation.evaluators.format_validity import format_validity, requested_format
from services.evaluation.evaluators.language_match import language_match
from services.evaluation.evaluators.own import FunctionEvaluator
from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.evaluators.readability import measures, readability, syllables
from services.evaluation.evaluators.refusal import refusal
from services.evaluation.evaluators.text import content_words, prose, sentences, words


def judge(one: FunctionEvaluator, answer: str, question: str = "", **rest: object) -> Judged | None:
    return one.evaluate([Exchange(question=question, answer=answer, **rest)])[0]  # type: ignore[arg-type]


def score(one: FunctionEvaluator, answer: str, question: str = "", **rest: object) -> float:
    said = judge(one, answer, question, **rest)
    assert said is not None
    return said.score


UNKNOWING = """
I don't know.
I do not know the answer to that question.
I'm afraid I have no information about the opening hours.
The provided context does not mention the price.
The passages do not contain any information about her birthday.
There is no mention of a refund in the documents.
The date is not specified in the given text.
I couldn't find any information on that in the sources.
This cannot be determined from the passages.
Her year of birth cannot be determined.
Unfortunately, I don't have access to your account details.
I do not have access to real-time data.
Unknown
I don't have enough information to answer this.
No relevant passages were found.
Das weiß ich leider nicht.
Dazu habe ich keine Informationen.
Je ne sais pas.
Le contexte ne mentionne pas le prix.
No lo sé.
No tengo información sobre ese tema.
Non lo so.
Eu não sei.
Ik weet het niet.
Я не знаю.
我不知道。
わかりません。
모르겠습니다.
""".strip().splitlines()

ANSWERING = """
You know what? The tower is 330 metres high.
I don't know a better place for coffee than Vienna, and here is why: the city has had coffee houses for three centuries.
The contract states that nothing is refunded after thirty days.
She said "I don't know" and left the room.
The document describes three ways to pay, and the first is by card.
If you do not know your password, choose Reset password.
He does not have a car.
The museum is open from nine to five, except on Mondays.
The unknown soldier's tomb lies under the arch.
There is no charge for delivery.
The target of the call cannot be determined at compile time, so the compiler emits an indirect one.
Love is a rose that cannot be found in shops.
I don't know what I would do without the internet.
I have no idea who first said so, but the oldest record of it is from 1873.
Some historians argue that there is insufficient evidence of the plague in the city.
Ich weiß, dass der Zug um neun fährt.
El museo no abre los lunes.
""".strip().splitlines()

DECLINING = [
    "I'm sorry, but I can't help with that.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Lo siento, pero no puedo ayudarte con eso.",
]


@pytest.mark.parametrize("answer", UNKNOWING)
def test_not_knowing_is_found(answer: str) -> None:
    said = judge(refusal, answer)
    assert said is not None
    assert said.categories.get("does_not_know", 0) >= 0.5


@pytest.mark.parametrize("answer", ANSWERING)
def test_answers_do_not_refuse(answer: str) -> None:
    assert score(refusal, answer) < 0.5


@pytest.mark.parametrize("answer", DECLINING)
def test_declining_is_found(answer: str) -> None:
    said = judge(refusal, answer)
    assert said is not None
    assert said.score == said.categories["declines"] >= 0.5


def test_what_answers_after_all_refuses_less() -> None:
    short = "The passages do not mention the price."
    long = (
        f"{short} They do say that the tour lasts two hours. " + "It starts at the old gate and ends at the river. " * 8
    )
    assert score(refusal, short) > score(refusal, long)


ENGLISH = "The committee will publish the results of the survey before the end of this month."
GERMAN = "Der Ausschuss wird die Ergebnisse der Umfrage noch vor dem Ende dieses Monats veröffentlichen."
FRENCH = "Le comité publiera les résultats de cette enquête avant la fin du mois prochain."


@pytest.mark.parametrize(
    ("question", "answer", "matches"),
    [
        (ENGLISH, ENGLISH, True),
        (GERMAN, GERMAN, True),
        (ENGLISH, GERMAN, False),
        (GERMAN, FRENCH, False),
        (f"Please sum this up: {ENGLISH}", GERMAN, False),
    ],
)
def test_languages_match_or_not(question: str, answer: str, matches: bool) -> None:
    found = score(language_match, answer, question)
    assert (found == 1) if matches else (found < 0.5)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (f"Translate into German: {ENGLISH}", GERMAN),
        ("Bitte antworte mir auf Englisch, wann der Ausschuss die Ergebnisse veröffentlicht.", ENGLISH),
        ("Kannst du mir diesen langen Satz bitte möglichst genau ins Englische bringen?", ENGLISH),
        ("请把下面这句话翻译成英文好吗谢谢", ENGLISH),
        ("Скажите, пожалуйста, как это предложение звучит по-английски?", ENGLISH),
        (f"Please sum this up: {GERMAN}", ENGLISH),
        (f"{GERMAN}\n\nWhat does this say?", ENGLISH),
        ("ok?", GERMAN),
        (ENGLISH, "```python\nprint('hello')\n```"),
    ],
)
def test_another_language_that_was_asked_for_is_no_mismatch(question: str, answer: str) -> None:
    assert judge(language_match, answer, question) is None


def test_instructions_may_ask_for_another_language() -> None:
    instructed = (Message(role="system", content="Always answer in German."),)
    assert judge(language_match, GERMAN, ENGLISH, messages=instructed) is None


EASY = "The cat sat on the mat. It was a big red mat. The cat was glad to sit there all day."
HARD = (
    "Institutional heterogeneity notwithstanding, contemporary organisational epistemologies necessitate interdisciplinary "
    "reconceptualisation of administrative responsibilities within transnational regulatory environments."
)


def test_plain_words_read_more_easily() -> None:
    assert score(readability, EASY) > 0.9
    assert score(readability, HARD) == 0
    plain = score(readability, ENGLISH)
    assert score(readability, EASY) > plain > score(readability, HARD)


def test_flesch_is_computed_by_hand() -> None:
    # 8 and 8 words, 13 and 11 syllables.
    text = "The river rises slowly in the early summer. People living near it move to higher ground."
    found = measures(text, "en")
    assert found is not None
    assert (found.words, found.syllables) == (8, 1.5)
    assert score(readability, text) == pytest.approx((206.835 - 1.015 * 8 - 84.6 * 1.5) / 100, abs=1e-6)


@pytest.mark.parametrize(
    ("word", "number"),
    list(
        zip(
            "cat table banana created wanted houses beautiful information people nation social idea area radio million the "
            "fire jumped boxes little apple average museum serious biology lion europe".split(),
            [1, 2, 3, 3, 2, 2, 3, 4, 2, 2, 2, 3, 3, 3, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 2, 2],
            strict=True,
        )
    ),
)
def test_syllables_of_english(word: str, number: int) -> None:
    assert syllables(word, "en") == number


def test_other_languages_have_formulas_of_their_own_or_none() -> None:
    short = "Der Hund lief nach Hause. Es war kalt, und der Wind blies stark. Er legte sich an den Ofen."
    assert score(readability, short) > score(readability, GERMAN)
    assert judge(readability, "Кошка сидит на ковре, а собака спит у двери и ждёт хозяина домой.") is None
    assert judge(readability, "Yes, by all means.") is None


SCHEMA = json.dumps(
    {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}}
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"city": "Paris"}', 1.0),
        ('```json\n{"city": "Paris", "people": 2}\n```', 0.75),
        ('Here you are: {"city": "Paris"}. Anything else?', 0.75),
        ('{"people": 2}', 0.5),
        ('{"city": "Paris", "people": "two"}', 0.5),
        ('{"city": NaN}', 0.0),
        ("Paris", 0.0),
    ],
)
def test_answers_against_a_schema(answer: str, expected: float) -> None:
    assert score(format_validity, answer, response_format=SCHEMA) == expected


def test_a_reason_tells_the_place_and_not_the_text() -> None:
    said = judge(format_validity, '{"city": 5, "secret": "4711"}', response_format=SCHEMA)
    assert said is not None
    assert said.reason == "breaks the schema at /properties/city/type"


@pytest.mark.parametrize("schema", ["{", '{"type": "nonsense"}', '{"$ref": "http://localhost/schema.json"}'])
def test_a_schema_that_cannot_be_used_judges_nothing(schema: str) -> None:
    assert judge(format_validity, "{}", response_format=schema) is None


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("List the rivers. Answer in JSON.", "json"),
        ("Return the result as valid JSON only", "json"),
        ("How do I convert XML to JSON?", None),
        ("Do not answer in JSON.", None),
        ("What is a JSON schema?", None),
        ("Give me a bulleted list of rivers", "bullet"),
        ("Create a numbered list of steps.", "numbered"),
        ("Can you answer in JSON?", "json"),
        ("What are the longest rivers in JSON format?", "json"),
        ("Read this JSON. Respond with JSON.", "json"),
        ("When you answer, use only JSON.", "json"),
        ("How do I return JSON from a Flask endpoint?", None),
        ("Why does my API return JSON instead of XML?", None),
        ("Does your API give its responses in JSON?", None),
        ("Can we return JSON there?", None),
        ("Write a function that outputs JSON.", None),
        ("Write an essay about JSON.", None),
        ("What is the first name in this JSON?", None),
        ("How do I create a Markdown table?", None),
        ("How do I put a link in a code block?", None),
        ("Answer with bullet points", "bullet"),
        ("Explain it as a numbered list", "numbered"),
        ("Compare them in a markdown table", "table"),
        ("Put it in a code block", "code"),
        ("Where is the canteen?", None),
    ],
)
def test_formats_that_are_asked_for(question: str, wanted: str | None) -> None:
    assert requested_format(Exchange(question=question)) == wanted


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("Answer in JSON.", "[1, 2]", "1 and 2"),
        ("Answer with bullet points", "- one\n- two", "one, two"),
        ("Explain it as a numbered list", "1. one\n2. two", "- one"),
        ("Compare them in a markdown table", "| a | b |\n|---|---|\n| 1 | 2 |", "a: 1, b: 2"),
        ("Put it in a code block", "```python\nx = 1\n```", "x = 1"),
    ],
)
def test_answers_have_the_format_or_not(question: str, right: str, wrong: str) -> None:
    assert score(format_validity, right, question) == 1
    assert score(format_validity, wrong, question) == 0


def test_instructions_ask_for_formats_too() -> None:
    instructed = (Message(role="system", content="You are terse. Always respond in JSON."),)
    assert score(format_validity, "no", "Is it open?", messages=instructed) == 0
    assert judge(format_validity, "no", "Is it open?") is None


def test_sentences_and_words() -> None:
    assert sentences('Dr. Lee came, e.g. on Monday. "Why?" he asked.\nHe left!') == [
        "Dr. Lee came, e.g. on Monday.", '"Why?"', "he asked.", "He left!",
    ]  # fmt: skip
    assert sentences("巴黎是首都。它很大。") == ["巴黎是首都。", "它很大。"]
    assert words("Café's 3 items") == ["cafe's", "3", "items"]
    assert content_words("What are the cities?") == content_words("city") == ["city"]
    assert prose("# Title\n- **bold** item\n```\ncode\n```\nend") == "Title\nbold item\n\n\nend"


@given(st.text(max_size=200), st.text(max_size=60))
def test_any_text_is_judged(answer: str, question: str) -> None:
    for one in (refusal, language_match, readability, format_validity):
        said = judge(one, answer, question)
        assert said is None or 0 <= said.score <= 1
