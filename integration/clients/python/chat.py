"""Calls the gateway with OpenAI's Python client. Prints `ok CASE` or `FAILED CASE: why` for each case."""

import json
import os
import sys
import traceback

import openai

URL = os.environ["POINTSMAN_URL"] + "/v1"


def client(key="sk-acme"):
    return openai.OpenAI(api_key=key, base_url=URL, max_retries=0, timeout=30)


def user(text):
    return [{"role": "user", "content": text}]


def script(behavior):
    return user("[[sim:" + json.dumps(behavior) + "]]")


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def chat():
    answer = client().chat.completions.create(model="small", messages=script({"content": "Grüezi 😀"}))
    assert answer.choices[0].message.content == "Grüezi 😀", answer
    assert answer.choices[0].finish_reason == "stop", answer
    assert answer.usage.total_tokens > 0, answer


def chat_by_task_and_auto():
    for model in ["extract", "auto"]:
        answer = client().chat.completions.create(model=model, messages=user("hello"))
        assert answer.choices[0].message.content, answer


def metadata_of_the_callers_own():
    metadata = {"task": "summarise invoices"}
    answer = client().chat.completions.create(model="small", messages=user("hello"), metadata=metadata)
    assert answer.choices[0].message.content, answer


def headers():
    raw = client().chat.completions.with_raw_response.create(model="small", messages=user("hello"))
    assert raw.headers["x-pointsman-model"] == "small", raw.headers
    assert raw.headers["x-request-id"], raw.headers
    assert raw.parse()._request_id == raw.headers["x-request-id"]


def stream():
    chunks = list(client().chat.completions.create(model="small", messages=script({"content": "a b c"}), stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "a b c", chunks
    assert chunks[-1].choices[0].finish_reason == "stop", chunks
    assert all(chunk.usage is None for chunk in chunks), chunks


def stream_with_usage():
    chunks = list(
        client().chat.completions.create(
            model="small", messages=script({"content": "a b c"}), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage.completion_tokens == 3 and chunks[-1].choices == [], chunks


def numbers_of_other_servers():
    for limits in [{"max_tokens": -1}, {"max_completion_tokens": -1}, {"max_tokens": 100.0, "n": 1.0, "seed": 7.0}]:
        answer = client().chat.completions.create(
            model="small", messages=script({"content": "a b c"}), user="python-numbers", **limits
        )
        assert answer.choices[0].message.content == "a b c", answer
    for limits in [{"max_tokens": -2}, {"max_tokens": 1.5}, {"n": -1}]:
        try:
            client().chat.completions.create(model="small", messages=user("a"), **limits)
        except openai.BadRequestError as caught:
            assert caught.param == next(iter(limits)), caught.body
        else:
            raise AssertionError(limits)


def tools_round_trip():
    messages = user("Weather in Bern?")
    first = client().chat.completions.create(model="small", messages=messages, tools=TOOLS)
    call = first.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments), first
    assert first.choices[0].finish_reason == "tool_calls", first
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
    second = client().chat.completions.create(model="small", messages=messages, tools=TOOLS)
    assert "21 degrees" in second.choices[0].message.content, second


def tools_streamed():
    chunks = client().chat.completions.create(model="small", messages=user("Weather?"), tools=TOOLS, stream=True)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "get_weather", calls
    json.loads("".join(call.function.arguments or "" for call in calls))


def tools_streamed_with_usage():
    chunks = list(
        client().chat.completions.create(
            model="small", messages=user("Weather?"), tools=TOOLS, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [call for chunk in chunks[:-1] for call in chunk.choices[0].delta.tool_calls or []]
    assert pieces[0].index == 0 and pieces[0].id and pieces[0].function.name == "get_weather", pieces
    json.loads("".join(piece.function.arguments or "" for piece in pieces))
    assert chunks[-2].choices[0].finish_reason == "tool_calls", chunks
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, chunks
    assert all(chunk.usage is None for chunk in chunks[:-1]), chunks


def json_schema():
    properties = {"total": {"type": "number"}}
    schema = {"type": "object", "properties": properties, "required": ["total"], "additionalProperties": False}
    answer = client().chat.completions.create(
        model="small",
        messages=user("total?"),
        response_format={"type": "json_schema", "json_schema": {"name": "invoice", "schema": schema, "strict": True}},
    )
    assert "total" in json.loads(answer.choices[0].message.content), answer


def expect(error, status, code, call):
    try:
        call()
    except error as caught:
        assert caught.status_code == status and caught.code == code, (caught.status_code, caught.code, caught.body)
        assert caught.request_id, "no request id"
    else:
        raise AssertionError("no " + error.__name__)


def error_401():
    call = lambda: client("sk-nobody").chat.completions.create(model="small", messages=user("a"))
    expect(openai.AuthenticationError, 401, "invalid_api_key", call)


def error_400():
    call = lambda: client().chat.completions.create(model="small", messages=[])
    expect(openai.BadRequestError, 400, "empty_array", call)


def error_400_of_the_provider():
    message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
    document = {"error": {"message": message, "code": "context_length_exceeded"}}
    call = lambda: client().chat.completions.create(model="small", messages=script({"status": 400, "json": document}))
    expect(openai.BadRequestError, 400, "context_length_exceeded", call)
    listed = [{"error": {"code": 400, "message": "Invalid JSON payload.", "status": "INVALID_ARGUMENT"}}]
    try:
        client().chat.completions.create(model="small", messages=script({"status": 400, "json": listed}))
    except openai.BadRequestError as caught:
        assert caught.body["message"] == "Invalid JSON payload.", caught.body


def error_402_is_the_gateways():
    call = lambda: client().chat.completions.create(model="small", messages=script({"status": 402}))
    expect(openai.InternalServerError, 502, "provider_refused_gateway", call)


def error_403():
    call = lambda: client("sk-frugal").chat.completions.create(model="big", messages=user("a"))
    expect(openai.PermissionDeniedError, 403, "model_not_allowed", call)


def error_404():
    call = lambda: client().chat.completions.create(model="nothing", messages=user("a"))
    expect(openai.NotFoundError, 404, "model_not_found", call)


def error_404_path():
    call = lambda: client().embeddings.create(model="small", input="a")
    expect(openai.NotFoundError, 404, "unknown_url", call)


def error_429():
    call = lambda: client().chat.completions.create(model="small", messages=script({"status": 429}))
    expect(openai.RateLimitError, 429, "provider_rate_limited", call)


def error_503():
    call = lambda: client().chat.completions.create(model="small", messages=script({"status": 503}))
    expect(openai.InternalServerError, 503, "provider_unavailable", call)


def error_in_mid_stream():
    broken = {"content": "a b c d", "fault": {"error_event": {"after_chunks": 2, "json": {"error": {"message": "x"}}}}}
    seen = ""
    try:
        for chunk in client().chat.completions.create(model="small", messages=script(broken), stream=True):
            seen += chunk.choices[0].delta.content or ""
    except openai.APIError as caught:
        assert seen == "a b" and caught.code == "stream_error", (seen, caught.code, caught.body)
    else:
        raise AssertionError("the error went unnoticed after " + repr(seen))


def models_list():
    ids = [model.id for model in client("sk-frugal").models.list()]
    assert "small" in ids and "extract" in ids and "big" not in ids, ids


def models_retrieve():
    for id in ["small", "extract", "hub/small:latest"]:
        model = client().models.retrieve(id)
        assert (model.id, model.object) == (id, "model"), model
    expect(openai.NotFoundError, 404, "model_not_found", lambda: client("sk-frugal").models.retrieve("big"))


def cancel_in_mid_stream():
    slow = {"chunks": 10000, "chunk_ms": 20}
    chunks = client().chat.completions.create(model="small", messages=script(slow), user="python-cancel", stream=True)
    for number, _ in enumerate(chunks):
        if number == 3:
            break
    chunks.close()


def main():
    named = list(globals().values())
    cases = [value for value in named if callable(value) and getattr(value, "__module__", None) == "__main__"]
    helpers = {client, user, script, expect, main}
    failed = False
    for case in cases:
        if case in helpers:
            continue
        try:
            case()
            print("ok", case.__name__, flush=True)
        except Exception as error:
            failed = True
            print(f"FAILED {case.__name__}: {error!r}", flush=True)
            traceback.print_exc()
    print("openai", openai.__version__)
    sys.exit(failed)


main()
