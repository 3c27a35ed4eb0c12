"""A judge behind an OpenAI-compatible endpoint, as a process: python -m tests.integration.judge_endpoint.

It prints its port, holds itself to the JSON schema it is given, and is as bad as judges are: of two answers that are nearly
alike it prefers the one it is shown first, at times it says no verdict, and at times it fails. What it says follows from
what it is asked, so a test knows it beforehand. Answers are graded by the digit after "quality" in them.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from typing import Any

from aiohttp import web

__all__ = ["BIAS", "compared", "fails", "garbles", "graded"]

MODEL = "judge-model-1"
BIAS = 2
"""What the place of an answer is worth, in quality."""


def _chance(question: str, attempt: int, salt: str) -> float:
    return zlib.crc32(f"{salt}/{attempt}/{question}".encode()) / 2**32


def fails(question: str, attempt: int) -> bool:
    """Return whether the endpoint refuses to answer."""
    return _chance(question, attempt, "fails") < 0.15


def garbles(question: str, attempt: int) -> bool:
    """Return whether the judge says no verdict."""
    return _chance(question, attempt, "garbles") < 0.25 or "hopeless" in question


def graded(answer: str) -> str:
    """Return the verdict on one answer."""
    found = _quality(answer)
    return "good" if found >= 7 else "fair" if found >= 4 else "bad"


def compared(first: str, second: str) -> str:
    """Return the verdict on two answers in the order in which they are shown."""
    gap = _quality(first) + BIAS - _quality(second)
    return "a" if gap > 0 else "b" if gap < 0 else "tie"


def _quality(answer: str) -> int:
    found = re.search(r"quality (\d)", answer)
    return int(found[1]) if found else 0


def _judged(body: dict[str, Any]) -> str:
    """Read what is judged between its lines, and nothing else: a judge that does as its instructions say.

    Raises:
        KeyError: the request is no judge's.
    """
    system, user = (message["content"] for message in body["messages"])
    marker = re.search(r"lines with the code ([0-9a-f]{16})", system)
    assert marker is not None
    lines = rf"^--- (\w+) {marker[1]} begins ---\n(.*?)\n--- \1 {marker[1]} ends ---$"
    texts = dict(re.findall(lines, user, re.S | re.M))
    # A judge that can be talked to: what stands outside the lines is taken for an instruction.
    steered = re.search(r"the verdict is (\w+)", re.sub(lines, "", user, flags=re.S | re.M))
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    verdicts = schema["schema"]["properties"]["verdict"]["enum"]
    if garbles(texts["question"], body["seed"]):
        return "I would rather not say."
    verdict = compared(texts["answer_a"], texts["answer_b"]) if "a" in verdicts else graded(texts["answer"])
    if steered:
        verdict = steered[1]
    assert verdict in verdicts
    return json.dumps({"reason": f"it is {verdict}", "verdict": verdict})


async def _reply(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    user = body["messages"][-1]["content"]
    question = re.search(r"^--- question \w+ begins ---\n(.*?)\n--- question", user, re.S | re.M)
    if question is None:
        return web.json_response({"error": "no question"}, status=400)
    if fails(question[1], body["seed"]):
        return web.json_response({"error": "out of memory"}, status=400)
    message = {"role": "assistant", "content": _judged(body)}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return web.json_response({"model": MODEL, "choices": choices, "usage": usage})


async def _serve() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _reply)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
