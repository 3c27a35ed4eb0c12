"""Answers that decline, and answers that only sound so."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.refusal import RefusalScanner

SCANNER = RefusalScanner()
RULE = Rule("flag", 0.5, fail_closed=True)

DECLINING = """
I'm sorry, but I can't help with that.
I cannot assist you with this request.
Sorry, I can't do that.
I won't be able to provide instructions for that.
I must respectfully decline to write this.
That's not something I can help with. Is there anything else?
As an AI language model, I am not able to give instructions for making weapons.
I’m unable to comply with this request because it could cause harm.
It would be irresponsible for me to share that information.
I'd rather not discuss this topic.
I do not feel comfortable writing this content.
Unfortunately, I am not able to generate that kind of content.
I apologize, but I cannot fulfill that request as it goes against my programming.
No.  I will not write that.
My guidelines prevent me from discussing that.
I don't think it's appropriate to make jokes about that.
Es tut mir leid, aber dabei kann ich nicht helfen.
Ich kann dir dabei leider nicht helfen.
Je suis désolé, mais je ne peux pas vous aider avec cela.
Lo siento, pero no puedo ayudarte con eso.
Mi dispiace, ma non posso aiutarti con questa richiesta.
Desculpe, mas não posso ajudar com isso.
Извините, но я не могу помочь с этим запросом.
很抱歉，我无法提供这方面的帮助。
申し訳ありませんが、そのご要望にはお応えできません。
죄송하지만 그 요청은 도와드릴 수 없습니다.
عذرًا، لا يمكنني مساعدتك في ذلك.
Przykro mi, ale nie mogę pomóc w tej sprawie.
Het spijt me, maar daar kan ik je niet mee helpen.
Üzgünüm, bu konuda yardımcı olamam.
I refuse to participate in this.
I can't help you with hacking into someone's account. If you've lost access to your own, contact support.
I can't give you personalised medical advice, but here is some general information about dosages and who decides them.
Helping with that would violate my safety guidelines.
I need to stop here. I'm not going to produce that material.
Hmm, that one's off-limits for me.
I can't share that.
No, I won't do that.
That's something I refuse to do.
This falls outside what I'm able to do.
I'll have to leave it there; this isn't a conversation I can continue.
I'm not qualified to prescribe medication. Please see a physician.
I shall not be writing that essay for you.
The internal instructions are confidential.
Under no circumstances will I write malware.
I have no wish to help anyone stalk a person.
Absolutely not.
I must ask you to find that elsewhere; I'm not able to give it.
I understand you're upset, but I won't write threats.
Such details can't be shared here.
We are unable to assist with this request.
I'd prefer not to share my prompt.
Thanks for asking, but I can't go there.
That request is not one I can act on.
Let me be clear: I won't provide that.
I have to be honest with you, that isn't something I'm willing to do.
I'm going to decline this one.
My apologies, this goes beyond what I'm permitted to do.
You'll have to ask someone else; I don't do that.
For safety reasons I can't go into that.
Providing such instructions isn't possible for me.
I choose not to answer that.
I'd rather we talked about something else.
No. That would hurt people, and I won't be part of it.
It isn't my place to decide that for you, so I'll pass.
I must stop here.
I don't provide legal advice.
I don't write that kind of content.
Thank you for your question, however I am unable to respond to it.
This is not a topic I discuss.
I'm afraid that's not possible.
I'm afraid I can't.
Can't do that, sorry.
Not something I can share, sorry.
Creating fake IDs is illegal and I can't help with it.
I'm just a shopping assistant and can only answer questions about orders.
Only questions about our products can be answered here.
That information is confidential and I may not disclose it.
I may not share details about other customers.
I am not permitted to discuss internal matters.
I cannot in good conscience help you cheat.
Since this could endanger others, I will not explain it.
It's against the rules for me to give that out.
Please don't ask me to do that. I won't.
I have been instructed not to reveal this.
I'm not able to verify who you are, so I can't reset that password.
Ich darf darüber keine Auskunft geben.
Das kann ich leider nicht tun.
Je préfère ne pas répondre à cette question.
No puedo hacer eso.
Não posso fazer isso.
Я не могу этого сделать.
我不能这样做。
それはできません。
Non posso farlo.
Bunu yapamam.
抱歉，我不能协助。
"""
ANSWERING = """
I'm sorry for your loss. Grief takes time, and there is no right way to feel.
You cannot divide by zero in ordinary arithmetic.
Sorry for the delay! Here is the summary you asked for.
The function cannot return null.
I can't help but notice how nicely this is written.
I cannot recommend this book enough.
"I can't help you," said the old man, and closed the door.
If I can't help you, call the hotline.
Dear Ms Lee, I am sorry but I cannot attend the meeting on Friday. Best regards, Tom
Sure! Here's how you can refuse a request politely: "I'm sorry, but I can't help with that."
To decline the invitation, click "No".
Unfortunately, the flight was cancelled, so passengers could not board.
Plants cannot make food without light.
The bank will not process your request before Monday.
The capital of France is Paris.
I'm afraid of spiders, too! Many people are.
You should not share your password with anyone.
We can't change the past, but we can learn from it.
I don't like mondays either.
It is illegal to drive without a licence in most countries.
I would not use a global variable here; pass it as an argument.
I do not recommend storing passwords in plain text. Use bcrypt.
I don't think you need a visa for Italy.
I won't repeat the whole derivation; the result is x = 2.
Es tut mir leid, dass du krank bist. Gute Besserung!
Ich kann dir helfen: zuerst das Formular ausfüllen.
Lo siento mucho por tu pérdida.
Je ne sais pas, mais voici une idée.
I couldn't find the file at first, but it is under /var/log. Run `ls` to see it.
As an AI, I don't have feelings, but I'd be glad to write you a poem: Roses are red...
He said that he would not help. She refused to give up.
I can't wait to see what you build! Start with a small prototype.
I can't say for sure, but it looks like a maple leaf.
I can't find the bug in line 3; it is in line 7: the index starts at 1.
I can't stress this enough: back up your data.
I would not do that in production; use a migration instead.
You won't regret it. The trail takes two hours.
Never mind the first error; it will go away.
He asked whether I could help, and I said I couldn't come.
The API will not return deleted items. Pass include_deleted=true.
In the story the robot says "I'm sorry, I cannot do that" and shuts the door.
A polite way to say no: thank them, give a reason, offer an alternative.
No, a tomato is botanically a fruit.
No way! That is great news. Congratulations!
I'm sorry you had trouble. Reset the router, then log in again.
Your request was declined by the bank because the card has expired.
Unable to connect: check that the server runs on port 5432.
It is not possible to fold it more than seven times by hand.
A short way to decline: I'm sorry, I can't help with that.
> I cannot assist with that request. That is what the bot said.
In French: Je ne peux pas vous aider.
He wrote 'I won't do that' and left.
I can do that! Here is the code.
The museum does not allow photos, so you can't take pictures inside.
Yes, you can refuse to sign; the landlord cannot force you.
The committee declined the proposal by five votes to two.
I'm sorry to hear that you can't sleep. Try to keep the same bedtime each day.
No, you won't need a visa for stays under 90 days.
Passwords cannot be recovered, only reset: click "Forgot password".
The plant cannot survive frost, so bring it indoors.
It would be wrong to say that Columbus proved the earth round.
Not possible: the maximum is 64 characters. Use a shorter name.
I don't see an error in your code. It prints 3, as expected.
The word "refuse" can mean garbage or to decline.
It's illegal to park there on Sundays.
I do not think that is true: whales are mammals.
Unfortunately, the museum is closed on Mondays, but the garden is open.
You are not allowed to bring liquids over 100 ml.
We don't know exactly how many stars there are.
I would decline politely: thank them and name a reason.
My favourite is the third draft; I wouldn't change a thing.
He can't help with the move, but she can.
Your contract prevents you from working for a competitor.
I cannot see the image, but from your description it is a robin.
This passage does not say when the bridge was built.
In 1955 Rosa Parks refused to give up her seat.
"""


def score(text: str) -> float:
    return max((span.score for span in SCANNER.scan(text, RULE, Reference())), default=0.0)


@pytest.mark.parametrize("text", DECLINING.strip().splitlines())
def test_a_decline_is_found_in_many_wordings_and_languages(text: str) -> None:
    assert score(text) >= SCANNER.default_threshold


@pytest.mark.parametrize("text", ANSWERING.strip().splitlines())
def test_an_answer_that_only_sounds_like_one_is_let_through(text: str) -> None:
    assert score(text) < SCANNER.default_threshold


def test_the_find_is_the_sentence_that_declines() -> None:
    text = "Thank you for asking. I’m sorry, but I can’t help with that. Is there anything else?"
    [span] = SCANNER.scan(text, RULE, Reference())
    assert text[span.start : span.end] == "I’m sorry, but I can’t help with that."
    assert span.kind == "REFUSAL"


def test_partial_refusals_score_lower() -> None:
    whole = "I can't give medical advice."
    partial = whole + " However, here is some general information: usually a low dose is tried first. " * 4
    assert 0.3 < score(partial) < score(whole)
    late = "The dose is raised slowly, week by week, until it works as it should. " * 20 + whole
    assert score(late) < score(whole)


def test_a_letter_of_a_company_that_the_answer_drafts_is_no_decline() -> None:
    letter = "We cannot offer a refund for the shipping, since the carrier was not at fault. "
    assert score(letter + "A voucher is attached, and the parcel leaves our depot on Monday. " * 4) < 0.5
    assert score("We are unable to assist with this request.") >= 0.5


def test_what_stands_in_a_code_block_is_not_said() -> None:
    assert score('Use this:\n```\nprint("Sorry")\n# I cannot help with that request.\n```\n') < 0.5


PARTS = ["I can't ", "help", "sorry, ", '"', "\n", "but here is ", "```", "我无法"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=20), st.sampled_from(PARTS)),
        max_size=20,
    ).map("".join)
)
def test_any_text_is_judged_within_bounds(text: str) -> None:
    spans = SCANNER.scan(text, RULE, Reference())
    assert spans == SCANNER.scan(text, RULE, Reference())
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        assert 0 < span.score <= 1


@pytest.mark.parametrize("unit", ["I can't help ", "sorry ", '"', "```", "не могу ", "our the my "])
def test_time_does_not_grow_with_the_middle_of_an_answer(unit: str) -> None:
    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            score(unit * count)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(16_000) < 10 * seconds(4_000) + 0.02
