"""Calls the gateway with Anthropic's Python client.

Prints `ok CASE` or `FAILED CASE: why` for each case. Works with every major version of the client.
"""

import json
import os
import sys
import traceback

import anthropic

URL = os.environ["POINTSMAN_URL"]
TOOL = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def client(key="sk-acme"):
    return anthropic.Anthropic(api_key=key, base_url=URL, max_retries=0, timeout=30)


def script(behavior):
    return [{"role": "user", "content": "[[sim:" + json.dumps(behavior) + "]]"}]


def create(messages, key="sk-acme", model="ask", **more):
    return client(key).messages.create(model=model, max_tokens=2048, messages=messages, **more)


def streamed(messages, **more):
    with client().messages.stream(model="ask", max_tokens=2048, messages=messages, **more) as stream:
        list(stream)
        return stream.get_final_message()


def failure(call):
    """Returns what `call` raises."""
    try:
        result = call()
    except Exception as error:  # Whatever the client makes of it is what is examined.
        return error
    raise AssertionError(f"no error, but {result}")


def whole():
    answer = create(script({"content": "Grüezi 😀"}))
    assert (answer.content[0].text, answer.stop_reason) == ("Grüezi 😀", "end_turn"), answer
    assert answer._request_id, answer


def stream():
    answer = streamed(script({"content": "one two three", "cached_tokens": 4}))
    assert (answer.content[0].text, answer.stop_reason) == ("one two three", "end_turn"), answer
    assert answer.usage.cache_read_input_tokens == 4, answer


def tools_and_thinking_round_trip():
    question = {"role": "user", "content": "What is the weather in Zürich?"}
    answer = streamed([question], tools=[TOOL], thinking=THINKING)
    call = next(block for block in answer.content if block.type == "tool_use")
    assert answer.stop_reason == "tool_use" and call.name == "get_weather", answer
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    # The provider refuses a thinking block whose text or signature has changed on the way.
    turns = [question, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    said = create(turns, tools=[TOOL], thinking=THINKING)
    assert any("sunny" in block.text for block in said.content if block.type == "text"), said


def count_tokens():
    count = client().messages.count_tokens(model="claude", messages=[{"role": "user", "content": "hello"}])
    assert count.input_tokens > 0, count


def models():
    ids = [model.id for model in client().models.list(limit=100)]
    assert "claude" in ids and "ask" in ids, ids
    assert client().models.retrieve("claude").display_name == "claude"


def errors():
    for error, kind in [
        (failure(lambda: create(script({}), key="sk-nobody")), anthropic.AuthenticationError),
        (failure(lambda: create(script({}), model="nothing")), anthropic.NotFoundError),
        (failure(lambda: create(script({}), model="chat-only")), anthropic.BadRequestError),
        (failure(lambda: create(script({}), key="sk-poor", model="claude")), anthropic.RateLimitError),
        (failure(lambda: create(script({"status": 500}), model="claude")), anthropic.InternalServerError),
        (failure(lambda: create(script({"status": 529}), model="claude")), anthropic.InternalServerError),
    ]:
        assert isinstance(error, kind), (error, kind)
        assert error.body["type"] == "error" and error.body["request_id"], error.body
    assert failure(lambda: create(script({"status": 529}), model="claude")).status_code == 529


def error_in_mid_stream():
    for fault in [{"error_event": {"after_chunks": 2}}, "no_done", {"truncate_event": {"after_chunks": 2}}]:
        error = failure(lambda: streamed(script({"chunks": 4, "fault": fault})))
        assert isinstance(error, anthropic.APIStatusError), (fault, error)


def main():
    failed = False
    cases = [whole, stream, tools_and_thinking_round_trip, count_tokens, models, errors, error_in_mid_stream]
    for case in cases:
        try:
            case()
        except Exception as error:
            failed = True
            traceback.print_exc()
            print(f"FAILED {case.__name__}: {error!r}")
        else:
            print(f"ok {case.__name__}")
    sys.exit(failed)


main()
