// Calls the gateway with OpenAI's JavaScript client. Prints `ok CASE` or `FAILED CASE: why` for each case.

import OpenAI from "openai";
import assert from "node:assert/strict";

const baseURL = process.env.POINTSMAN_URL + "/v1";
const client = (apiKey = "sk-acme") => new OpenAI({ apiKey, baseURL, maxRetries: 0, timeout: 30_000 });
const user = (content) => [{ role: "user", content }];
const script = (behavior) => user(`[[sim:${JSON.stringify(behavior)}]]`);
const create = (body, key) => client(key).chat.completions.create(body);

const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function expectError(kind, status, code, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name} in place of ${kind.name}`);
    assert.deepEqual([error.status, error.code], [status, code]);
    assert.ok(error.requestID, "no request id");
    return true;
  });
}

const cases = {
  async chat() {
    const answer = await create({ model: "small", messages: script({ content: "Grüezi 😀" }) });
    assert.equal(answer.choices[0].message.content, "Grüezi 😀");
    assert.ok(answer.usage.total_tokens > 0);
    assert.ok(answer._request_id);
  },
  async chat_by_task_and_auto() {
    for (const model of ["extract", "auto"]) {
      const answer = await create({ model, messages: user("hello") });
      assert.ok(answer.choices[0].message.content);
    }
  },
  async stream() {
    const chunks = await all(await create({ model: "small", messages: script({ content: "a b c" }), stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), "a b c");
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  },
  async stream_with_usage() {
    const body = { model: "small", messages: script({ content: "a b c" }), stream: true,
      stream_options: { include_usage: true } };
    const last = (await all(await create(body))).at(-1);
    assert.deepEqual([last.usage.completion_tokens, last.choices], [3, []]);
  },
  async numbers_of_other_servers() {
    for (const limits of [{ max_tokens: -1 }, { max_completion_tokens: -1 }]) {
      const answer = await create({ model: "small", messages: script({ content: "a b c" }), user: "node-numbers",
        ...limits });
      assert.equal(answer.choices[0].message.content, "a b c");
    }
    for (const limits of [{ max_tokens: -2 }, { max_tokens: 1.5 }, { n: -1 }]) {
      await assert.rejects(create({ model: "small", messages: user("a"), ...limits }), (error) => {
        assert.deepEqual([error.status, error.param], [400, Object.keys(limits)[0]]);
        return true;
      });
    }
  },
  async tools_round_trip() {
    const messages = user("Weather in Bern?");
    const first = await create({ model: "small", messages, tools });
    const call = first.choices[0].message.tool_calls[0];
    assert.equal(call.function.name, "get_weather");
    assert.ok("city" in JSON.parse(call.function.arguments));
    messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "21 degrees" });
    const second = await create({ model: "small", messages, tools });
    assert.match(second.choices[0].message.content, /21 degrees/);
  },
  async tools_streamed() {
    const chunks = await all(await create({ model: "small", messages: user("Weather?"), tools, stream: true }));
    const calls = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    assert.equal(calls[0].function.name, "get_weather");
    JSON.parse(calls.map((call) => call.function.arguments ?? "").join(""));
  },
  async tools_streamed_with_usage() {
    const stream_options = { include_usage: true };
    const chunks = await all(await create({ model: "small", messages: user("Weather?"), tools, stream: true,
      stream_options }));
    const last = chunks.pop();
    const pieces = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    assert.ok(pieces[0].index === 0 && pieces[0].id && pieces[0].function.name === "get_weather");
    JSON.parse(pieces.map((piece) => piece.function.arguments ?? "").join(""));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
    assert.ok(last.choices.length === 0 && last.usage.completion_tokens > 0);
  },
  async json_schema() {
    const schema = { type: "object", properties: { total: { type: "number" } }, required: ["total"],
      additionalProperties: false };
    const response_format = { type: "json_schema", json_schema: { name: "invoice", schema, strict: true } };
    const answer = await create({ model: "small", messages: user("total?"), response_format });
    assert.ok("total" in JSON.parse(answer.choices[0].message.content));
  },
  error_401: () =>
    expectError(OpenAI.AuthenticationError, 401, "invalid_api_key", () =>
      create({ model: "small", messages: user("a") }, "sk-nobody")),
  error_400: () => expectError(OpenAI.BadRequestError, 400, "empty_array", () =>
    create({ model: "small", messages: [] })),
  error_400_of_the_provider: () => {
    const message = "This model's maximum context length is 8192 tokens.";
    const json = { error: { message, code: "context_length_exceeded" } };
    return expectError(OpenAI.BadRequestError, 400, "context_length_exceeded", () =>
      create({ model: "small", messages: script({ status: 400, json }) }));
  },
  error_402_is_the_gateways: () =>
    expectError(OpenAI.InternalServerError, 502, "provider_refused_gateway", () =>
      create({ model: "small", messages: script({ status: 402 }) })),
  error_403: () =>
    expectError(OpenAI.PermissionDeniedError, 403, "model_not_allowed", () =>
      create({ model: "big", messages: user("a") }, "sk-frugal")),
  error_404: () => expectError(OpenAI.NotFoundError, 404, "model_not_found", () =>
    create({ model: "nothing", messages: user("a") })),
  error_429: () =>
    expectError(OpenAI.RateLimitError, 429, "provider_rate_limited", () =>
      create({ model: "small", messages: script({ status: 429 }) })),
  error_503: () =>
    expectError(OpenAI.InternalServerError, 503, "provider_unavailable", () =>
      create({ model: "small", messages: script({ status: 503 }) })),
  async error_in_mid_stream() {
    const fault = { error_event: { after_chunks: 2, json: { error: { message: "x" } } } };
    let seen = "";
    const read = async () => {
      for await (const chunk of await create({ model: "small", messages: script({ content: "a b c d", fault }),
        stream: true })) {
        seen += chunk.choices[0].delta.content ?? "";
      }
    };
    await assert.rejects(read, OpenAI.APIError);
    assert.equal(seen, "a b");
  },
  async metadata_of_the_callers_own() {
    const answer = await create({ model: "small", messages: user("hello"), metadata: { task: "summarise invoices" } });
    assert.ok(answer.choices[0].message.content);
  },
  async models_retrieve() {
    for (const id of ["small", "extract", "hub/small:latest"]) {
      const model = await client().models.retrieve(id);
      assert.deepEqual([model.id, model.object], [id, "model"]);
    }
    await expectError(OpenAI.NotFoundError, 404, "model_not_found", () => client("sk-frugal").models.retrieve("big"));
  },
  async models_list() {
    const ids = (await all(await client("sk-frugal").models.list())).map((model) => model.id);
    assert.ok(ids.includes("small") && ids.includes("extract") && !ids.includes("big"), ids.join());
  },
  async cancel_in_mid_stream() {
    const stream = await create({ model: "small", messages: script({ chunks: 10000, chunk_ms: 20 }),
      user: "node-cancel", stream: true });
    let count = 0;
    for await (const _ of stream) if (++count === 3) break;
    stream.controller.abort();
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`FAILED ${name}: ${error.stack}`);
  }
}
