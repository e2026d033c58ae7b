"""Calls the simulator itself with OpenAI's Python client: what it speaks is what the client takes for Responses.

Prints `ok CASE` or `FAILED CASE: why` for each case.
"""

import json
import os
import sys
import traceback

import openai

URL = os.environ["POINTSMAN_URL"] + "/v1"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files"}
REASONING = {"effort": "low", "summary": "auto"}
SEALED = ["reasoning.encrypted_content"]


def client():
    return openai.OpenAI(api_key="sk-acme", base_url=URL, max_retries=0, timeout=30)


def script(behavior):
    return "[[sim:" + json.dumps(behavior) + "]]"


def create(asked, **more):
    return client().responses.create(model="sim-small", input=asked, **more)


def streamed(asked, **more):
    """Returns the final response and the events of a stream, of which each must be exactly what the client expects."""
    with client().responses.stream(model="sim-small", input=asked, **more) as stream:
        events = list(stream)
        return stream.get_final_response(), events


def raw(asked, **more):
    return list(create(asked, stream=True, **more))


def failure(call):
    """Returns what `call` raises."""
    try:
        result = call()
    except Exception as error:  # Whatever the client makes of it is what is examined.
        return error
    raise AssertionError(f"no error, but {result}")


def strict(event):
    """Checks that an event has each member that the client's type of it wants, and of the type that it wants."""
    type(event).model_validate(event.model_dump(), strict=True)


def whole():
    answer = create(script({"content": "Grüezi 😀", "cached_tokens": 4}), instructions="Be brief.")
    assert answer.output_text == "Grüezi 😀" and answer.status == "completed", answer
    assert answer.usage.input_tokens_details.cached_tokens == 4, answer
    assert answer.usage.total_tokens == answer.usage.input_tokens + 2, answer
    assert answer.instructions == "Be brief.", answer


def stream():
    answer, events = streamed(script({"content": "a b c"}))
    assert answer.output_text == "a b c" and answer.status == "completed", answer
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed"), events
    assert [event.sequence_number for event in raw(script({"content": "a b c"}))] == list(range(11))


def stream_of_every_item():
    calls = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": "*** patch", "type": "custom"}]
    behavior = {"reasoning": "hm", "content": "Hé", "tool_calls": calls}
    answer, _ = streamed(script(behavior))
    kinds = [item.type for item in answer.output]
    assert kinds == ["reasoning", "message", "function_call", "custom_tool_call"], answer
    assert answer.output[0].summary[0].text == "hm" and answer.output_text == "Hé", answer
    assert json.loads(answer.output[2].arguments) == {"a": 1}, answer
    assert answer.output[3].input == "*** patch", answer
    for event in raw(script(behavior)):
        strict(event)
    strict(create(script(behavior)))


def tools_round_trip():
    for ask in [create, lambda *given, **more: streamed(*given, **more)[0]]:
        call = ask("hello", tools=[TOOL]).output[-1]
        assert (call.type, call.name, call.arguments) == ("function_call", "get_weather", '{"city":"sim"}'), call
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
        history = [{"role": "user", "content": "hello"}, call.model_dump(exclude_none=True), result]
        assert "21 degrees" in ask(history, tools=[TOOL]).output_text
        custom = ask("hello", tools=[PATCH]).output[-1]
        assert (custom.type, custom.input) == ("custom_tool_call", "sim"), custom


def json_schema():
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    answer = create("?", text={"format": {"type": "json_schema", "name": "x", "schema": schema}})
    assert answer.output_text == '{"total":1}', answer


def reasoning_round_trip():
    first, _ = streamed("hello", reasoning=REASONING, include=SEALED, store=False)
    item = first.output[0].model_dump(exclude_none=True)
    assert item["type"] == "reasoning" and item["encrypted_content"] and item["summary"], first
    assert first.usage.output_tokens_details.reasoning_tokens > 0, first
    asked = [item, {"role": "user", "content": "hello"}]
    assert create(asked).output_text
    item["summary"][0]["text"] += "!"
    error = failure(lambda: create(asked))
    assert isinstance(error, openai.BadRequestError) and error.code == "invalid_encrypted_content", repr(error)


def conversation():
    first = create(script({"content": "a"}))
    second = create("hello", previous_response_id=first.id)
    assert second.previous_response_id == first.id, second
    assert second.usage.input_tokens > first.usage.total_tokens, second
    assert client().responses.retrieve(first.id).output_text == "a"
    client().responses.delete(first.id)
    error = failure(lambda: client().responses.retrieve(first.id))
    assert isinstance(error, openai.NotFoundError), repr(error)
    forgotten = create(script({"content": "a"}), store=False)
    error = failure(lambda: create("hello", previous_response_id=forgotten.id))
    assert isinstance(error, openai.BadRequestError), repr(error)
    assert (error.code, error.param) == ("previous_response_not_found", "previous_response_id"), error


def input_tokens():
    counted = client().responses.input_tokens.count(model="sim-small", input="12345678")
    assert counted.input_tokens == 5, counted


def incomplete():
    answer = create("hello", max_output_tokens=16)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens"), answer
    assert answer.usage.output_tokens == 16, answer
    for reason in ["max_output_tokens", "content_filter"]:
        answer = create(script({"finish_reason": reason}))
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", reason), answer
        events = raw(script({"finish_reason": reason}))
        assert events[-1].type == "response.incomplete", events
        strict(events[-1])
        # The helper wants `response.completed` in any case.
        assert isinstance(failure(lambda: streamed(script({"finish_reason": reason}))), RuntimeError)


def failed():
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 1.5s."}
    behavior = {"content": "a b c", "fault": {"failed": {"after_chunks": 1, "json": error}}}
    last = raw(script(behavior))[-1]
    assert last.type == "response.failed" and last.response.error.code == "rate_limit_exceeded", last
    strict(last)
    assert isinstance(failure(lambda: streamed(script(behavior))), RuntimeError)
    answer = create(script(behavior))
    assert (answer.status, answer.error.code) == ("failed", "rate_limit_exceeded"), answer
    assert create(script({"finish_reason": "failed"})).error.code == "server_error"


def error_in_the_stream():
    for strike in [{}, {"after_head": True}, {"after_chunks": 2}]:
        behavior = {"content": "a b c", "fault": {"error_event": strike}}
        error = failure(lambda: streamed(script(behavior)))
        assert isinstance(error, (RuntimeError, openai.APIError)), repr(error)


def stream_without_end():
    for fault in ["no_done", {"truncate_event": {"after_chunks": 2}}]:
        error = failure(lambda: streamed(script({"content": "a b c", "fault": fault})))
        assert isinstance(error, RuntimeError) and "response.completed" in str(error), repr(error)


def stream_cut():
    for fault in ["close_mid_stream", "reset_mid_stream"]:
        error = failure(lambda: streamed(script({"content": "a b c", "fault": {fault: {"after_chunks": 2}}})))
        assert type(error).__name__ in ["APIConnectionError", "RemoteProtocolError", "ReadError"], repr(error)


def stream_framed_otherwise():
    # Not `comments`: the client takes a comment after an event with an id for an event without data.
    framings = [{"crlf": True}, {"no_space": True}, {"no_event_lines": True}, {"gzip": True}, {"split": {"bytes": 3}}]
    for framing in framings:
        answer, _ = streamed(script({"content": "Grüße 🚂", **framing}))
        assert answer.output_text == "Grüße 🚂", (framing, answer)


def errors():
    for status, kind in [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ]:
        for ask in [create, streamed]:
            error = failure(lambda: ask(script({"status": status})))
            assert isinstance(error, kind) and error.status_code == status, (status, repr(error))


CASES = [
    whole,
    stream,
    stream_of_every_item,
    tools_round_trip,
    json_schema,
    reasoning_round_trip,
    conversation,
    input_tokens,
    incomplete,
    failed,
    error_in_the_stream,
    stream_without_end,
    stream_cut,
    stream_framed_otherwise,
    errors,
]


def main():
    failures = False
    for case in CASES:
        try:
            case()
            print(f"ok {case.__name__}")
        except Exception:
            failures = True
            print(f"FAILED {case.__name__}: {traceback.format_exc()}")
    sys.exit(failures)


main()
