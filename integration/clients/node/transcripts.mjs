// Makes a list of calls with OpenAI's JavaScript client and prints what it makes of each answer, one line of JSON a
// call. `CALLS` names a file of JSON: a list of `{"url", "request"}`.

import { readFileSync } from "node:fs";
import OpenAI from "openai";

async function make({ url, request }) {
  const client = new OpenAI({ apiKey: "sk-acme", baseURL: url, maxRetries: 0, timeout: 60_000, logLevel: "off" });
  const documents = [];
  let error = null;
  try {
    const answer = await client.chat.completions.create(request);
    if (request.stream) for await (const chunk of answer) documents.push(chunk);
    else documents.push(answer);
  } catch (raised) {
    error = raised.constructor.name;
  }
  return { documents, error };
}

for (const call of JSON.parse(readFileSync(process.env.CALLS, "utf8"))) console.log(JSON.stringify(await make(call)));
