"""Makes a list of calls with OpenAI's Python client and prints what it makes of each answer, one line of JSON a call.

`CALLS` names a file of JSON: a list of `{"url", "request"}`.
"""

import json
import os

import openai


def plain(value):
    """An answer, or a chunk, as plain JSON with the members that it came with."""
    return value.to_dict(mode="json") if hasattr(value, "to_dict") else value


def make(call):
    client = openai.OpenAI(api_key="sk-acme", base_url=call["url"], max_retries=0, timeout=60)
    documents, error = [], None
    try:
        answer = client.chat.completions.create(**call["request"])
        for document in answer if call["request"].get("stream") else [answer]:
            documents.append(plain(document))
    except Exception as raised:
        error = type(raised).__name__
    return {"documents": documents, "error": error}


with open(os.environ["CALLS"], encoding="utf-8") as file:
    for call in json.load(file):
        print(json.dumps(make(call), separators=(",", ":")), flush=True)
