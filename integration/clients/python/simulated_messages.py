"""Calls the simulator itself with Anthropic's Python client: what it speaks is what the client takes for Messages.

Prints `ok CASE` or `FAILED CASE: why` for each case. Works with every major version of the client.
"""

import json
import os
import sys
import traceback

import anthropic

URL = os.environ["POINTSMAN_URL"]
MESSAGE = {"role": "user", "content": "hello"}
TOOL = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING = {"type": "enabled", "budget_tokens": 1024}
NAMES = ["APIConnectionError", "RemoteProtocolError", "ReadError"]


def client():
    return anthropic.Anthropic(api_key="sk-acme", base_url=URL, max_retries=0, timeout=30)


def script(behavior):
    return [{"role": "user", "content": "[[sim:" + json.dumps(behavior) + "]]"}]


def create(messages, **more):
    return client().messages.create(model="claude-sim", max_tokens=2048, messages=messages, **more)


def streamed(messages, **more):
    with client().messages.stream(model="claude-sim", max_tokens=2048, messages=messages, **more) as stream:
        events = list(stream)
        return stream.get_final_message(), events


def failure(call):
    """Returns what `call` raises."""
    try:
        result = call()
    except Exception as error:  # Whatever the client makes of it is what is examined.
        return error
    raise AssertionError(f"no error, but {result}")


def whole():
    answer = create(script({"content": "Grüezi 😀", "cached_tokens": 4, "cache_write_tokens": 3}))
    assert answer.content[0].text == "Grüezi 😀", answer
    assert (answer.stop_reason, answer.role, answer.model) == ("end_turn", "assistant", "claude-sim"), answer
    usage = answer.usage
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (4, 3), answer
    assert usage.input_tokens > 0 and usage.output_tokens == 2, answer
    assert answer._request_id.startswith("req_sim"), answer._request_id


def stream():
    answer, events = streamed(script({"content": "a b c", "cached_tokens": 4}))
    assert answer.content[0].text == "a b c", answer
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 3), answer
    assert answer.usage.cache_read_input_tokens == 4, answer
    kinds = [event.type for event in events if event.type != "text"]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds


def stream_of_every_block():
    behavior = {"reasoning": "hm", "content": "Hé", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    answer, _ = streamed(script(behavior))
    thinking, text, tool = answer.content
    assert (thinking.thinking, text.text, tool.input) == ("hm", "Hé", {"a": 1}), answer
    assert thinking.signature and tool.id.startswith("toolu_"), answer
    assert answer.stop_reason == "tool_use", answer


def redacted_thinking():
    answer, _ = streamed(script({"redacted_reasoning": "AAAA", "content": "x"}))
    assert [block.type for block in answer.content] == ["redacted_thinking", "text"], answer
    assert answer.content[0].data == "AAAA", answer


def tools_round_trip():
    for ask in [create, lambda *given, **more: streamed(*given, **more)[0]]:
        call = ask([MESSAGE], tools=[TOOL])
        assert call.stop_reason == "tool_use", call
        tool = call.content[-1]
        assert (tool.name, tool.input) == ("get_weather", {"city": "sim"}), call
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": tool.id, "content": "21 degrees"}]}
        history = [MESSAGE, {"role": "assistant", "content": call.content}, result]
        answer = ask(history, tools=[TOOL])
        assert "21 degrees" in answer.content[0].text, answer


def thinking_round_trip():
    first, _ = streamed([MESSAGE], thinking=THINKING)
    thinking = first.content[0]
    assert thinking.type == "thinking" and thinking.thinking and thinking.signature, first
    history = [MESSAGE, {"role": "assistant", "content": first.content}, MESSAGE]
    assert create(history, thinking=THINKING).content[-1].text
    thinking.thinking += "!"
    error = failure(lambda: create(history, thinking=THINKING))
    assert isinstance(error, anthropic.BadRequestError), repr(error)
    assert "Invalid `signature` in `thinking` block" in str(error), error


def stop_reasons():
    assert create(script({"finish_reason": "refusal"})).stop_reason == "refusal"
    stopped = create(script({"finish_reason": "stop_sequence"}), stop_sequences=["END"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "END"), stopped
    cut = client().messages.create(model="m", max_tokens=2, messages=[MESSAGE])
    assert (cut.stop_reason, cut.content[0].text) == ("max_tokens", "This is"), cut


def count_tokens():
    counted = client().messages.count_tokens(model="claude-sim", messages=[MESSAGE])
    assert counted.input_tokens == 5, counted


def models():
    listed = list(client().models.list(limit=1000))
    assert [model.id for model in listed] == ["sim-small", "sim-large"], listed
    assert client().models.retrieve("sim-large").display_name == "sim-large (simulated)"
    error = failure(lambda: client().models.retrieve("none"))
    assert isinstance(error, anthropic.NotFoundError), repr(error)


def errors():
    for status, name in [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (413, "RequestTooLargeError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (529, "OverloadedError"),
    ]:
        for ask in [create, streamed]:
            error = failure(lambda: ask(script({"status": status})))
            # Older clients have fewer classes, and name the status.
            assert getattr(anthropic, name, None) in (None, type(error)), (status, repr(error))
            assert error.status_code == status and error.body["type"] == "error", (status, repr(error))
            assert error.request_id == error.body["request_id"], error.body


def error_first():
    error = failure(lambda: streamed(script({"fault": {"error_event": {}}})))
    assert isinstance(error, anthropic.APIStatusError) and "overloaded_error" in str(error), repr(error)


def error_in_mid_stream():
    for strike in [{"after_head": True}, {"after_chunks": 2}]:
        error = failure(lambda: streamed(script({"content": "a b c", "fault": {"error_event": strike}})))
        assert isinstance(error, anthropic.APIStatusError) and "overloaded_error" in str(error), repr(error)


def stream_without_end_looks_whole():
    answer, _ = streamed(script({"content": "a b c", "fault": "no_done"}))
    assert (answer.content[0].text, answer.stop_reason) == ("a b c", "end_turn"), answer
    answer, _ = streamed(script({"content": "a b c", "fault": {"truncate_event": {"after_chunks": 2}}}))
    assert (answer.content[0].text, answer.stop_reason) == ("a b", None), answer


def stream_cut():
    for fault in ["close_mid_stream", "reset_mid_stream"]:
        error = failure(lambda: streamed(script({"content": "a b c", "fault": {fault: {"after_chunks": 2}}})))
        assert type(error).__name__ in NAMES, repr(error)


def stream_without_event_lines():
    assert isinstance(failure(lambda: streamed(script({"no_event_lines": True}))), AssertionError)


def stream_framed_otherwise():
    for framing in [{"crlf": True}, {"no_space": True}, {"comments": True}, {"split": {"bytes": 3}}, {"gzip": True}]:
        answer, _ = streamed(script({"content": "Grüße 🚂", **framing}))
        assert answer.content[0].text == "Grüße 🚂", (framing, answer)


def pings_after_a_chunk():
    behavior = {"content": "a b", "fault": {"ping_only": {"after_chunks": 1, "every_ms": 10}}}
    seen = []
    with client().messages.create(model="m", max_tokens=9, messages=script(behavior), stream=True) as events:
        for event in events:
            seen.append(event.type)
            # The client shows no pings, and waits as long as they come.
            if event.type == "content_block_delta":
                break
    assert seen == ["message_start", "content_block_start", "content_block_delta"], seen


CASES = [
    whole,
    stream,
    stream_of_every_block,
    redacted_thinking,
    tools_round_trip,
    thinking_round_trip,
    stop_reasons,
    count_tokens,
    models,
    errors,
    error_first,
    error_in_mid_stream,
    stream_without_end_looks_whole,
    stream_cut,
    stream_without_event_lines,
    stream_framed_otherwise,
    pings_after_a_chunk,
]


def main():
    failed = False
    for case in CASES:
        try:
            case()
            print(f"ok {case.__name__}")
        except Exception:
            failed = True
            print(f"FAILED {case.__name__}: {traceback.format_exc()}")
    sys.exit(failed)


main()
