"""Asks the gateway with OpenAI's Python client, unstreamed and put together from a stream, and compares the answers.

Prints `ok CASE` or `FAILED CASE: why` for each case.
"""

import json
import os
import sys
import traceback

import openai

URL = os.environ["POINTSMAN_URL"] + "/v1"


def client(seconds=30):
    return openai.OpenAI(api_key="sk-python", base_url=URL, max_retries=0, timeout=seconds)


def script(behavior):
    return [{"role": "user", "content": "[[sim:" + json.dumps(behavior) + "]]"}]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def same(**request):
    """Returns the answer that is the same both ways."""
    answers = []
    for task in ["plain", "assembled"]:
        raw = client().chat.completions.with_raw_response.create(model=task, **request)
        answer = raw.parse()
        assert answer._request_id == raw.headers["x-request-id"], raw.headers
        assert answer.id and answer.created > 0 and answer.object == "chat.completion", answer
        dump = answer.model_dump(exclude={"id", "created"})
        # The simulator numbers its calls.
        for choice in dump["choices"]:
            for call in choice["message"]["tool_calls"] or []:
                assert call.pop("id"), dump
        answers.append((dump, answer))
    assert answers[0][0] == answers[1][0], answers
    return answers[1][1]


def text():
    answer = same(messages=script({"content": "Grüezi 😀"}))
    assert answer.choices[0].message.content == "Grüezi 😀", answer
    assert answer.usage.total_tokens > 0, answer


def choices():
    answer = same(messages=script({"content": "a b c"}), n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2], answer


def tools():
    answer = same(messages=[{"role": "user", "content": "weather"}], tools=TOOLS)
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments)["city"], answer
    assert answer.choices[0].finish_reason == "tool_calls", answer


def schema():
    schema = {"name": "s", "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}}
    answer = same(
        messages=[{"role": "user", "content": "x"}],
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert "a" in json.loads(answer.choices[0].message.content), answer


def error_in_the_middle():
    behavior = {"chunks": 9, "fault": {"error_event": {"after_chunks": 4}}}
    try:
        client().chat.completions.create(model="assembled", messages=script(behavior))
    except openai.InternalServerError as error:
        assert error.status_code == 502 and error.code == "stream_error", error
        return
    raise AssertionError("no error")


def timeout():
    behavior = {"fault": {"hang_mid_stream": {"after_chunks": 3}}}
    try:
        client(seconds=0.5).chat.completions.create(model="assembled", messages=script(behavior))
    except openai.APITimeoutError:
        return
    raise AssertionError("no timeout")


def main():
    failed = False
    for case in [text, choices, tools, schema, error_in_the_middle, timeout]:
        try:
            case()
            print("ok", case.__name__)
        except Exception:
            failed = True
            print("FAILED", case.__name__ + ":", traceback.format_exc())
    sys.exit(failed)


main()
