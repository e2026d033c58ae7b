"""Calls the simulator's smaller endpoints with OpenAI's Python client. Prints `ok CASE` or `FAILED CASE: why`."""

import base64
import io
import json
import os
import sys
import traceback
import wave

import openai

URL = os.environ["POINTSMAN_URL"] + "/v1"


def client():
    return openai.OpenAI(api_key="sk-acme", base_url=URL, max_retries=0, timeout=30)


def script(behavior):
    return "[[sim:" + json.dumps(behavior) + "]]"


def embeddings():
    # The client asks for base64, and decodes it itself.
    made = client().embeddings.create(model="sim-embed", input=["a", "b", "a"])
    floats = client().embeddings.create(model="sim-embed", input="a", encoding_format="float")
    first, second, third = [item.embedding for item in made.data]
    assert len(first) == 16 and first == third != second, made
    assert all(abs(one - other) < 1e-6 for one, other in zip(first, floats.data[0].embedding)), floats
    assert (made.usage.prompt_tokens, made.usage.total_tokens) == (3, 3), made
    tokens = client().embeddings.create(model="sim-embed", input=[[1, 2], [3]], dimensions=4)
    assert [len(item.embedding) for item in tokens.data] == [4, 4] and tokens.usage.total_tokens == 3, tokens


def completions():
    made = client().completions.create(model="sim-small", prompt=script({"content": "a b"}), n=2)
    assert [choice.text for choice in made.choices] == ["a b", "a b"], made
    assert (made.choices[0].finish_reason, made.usage.completion_tokens) == ("stop", 4), made
    made = client().completions.create(model="sim-small", prompt=["x", "y"], max_tokens=2)
    assert [(choice.text, choice.finish_reason) for choice in made.choices] == [("This is", "length")] * 2, made


def completions_streamed():
    asked = {"model": "sim-small", "prompt": script({"content": "a b"}), "stream": True}
    chunks = list(client().completions.create(**asked, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "a b", chunks
    assert chunks[-2].choices[0].finish_reason == "stop", chunks
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 2, chunks


def moderations():
    made = client().moderations.create(input=["a kind word", "violence"])
    assert [result.flagged for result in made.results] == [False, True], made
    assert made.results[1].categories.violence and not made.results[1].categories.hate, made


def images():
    made = client().images.generate(model="gpt-image-1", prompt="a red train", n=2)
    assert [base64.b64decode(image.b64_json)[:4] for image in made.data] == [b"\x89PNG"] * 2, made
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens, made
    edited = client().images.edit(model="gpt-image-1", prompt="blue", image=("a.png", b"\x89PNG"))
    assert edited.data[0].b64_json, edited


def speech():
    made = client().audio.speech.create(model="sim-tts", voice="alloy", input="hello", response_format="wav")
    with wave.open(io.BytesIO(made.content)) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (24000, 2400), sound.getparams()


def transcriptions():
    asked = {"model": "sim-stt", "file": ("a.wav", b"RIFF\xff\x00"), "prompt": script({"content": "hello"})}
    assert client().audio.transcriptions.create(**asked).text == "hello"
    assert client().audio.transcriptions.create(**asked, response_format="text") == "hello\n"
    verbose = client().audio.transcriptions.create(**asked, response_format="verbose_json")
    assert verbose.segments[0].text == "hello", verbose


def errors():
    for call in [
        lambda behavior: client().embeddings.create(model="sim-embed", input=behavior),
        lambda behavior: client().completions.create(model="sim-small", prompt=behavior),
        lambda behavior: client().moderations.create(input=behavior),
        lambda behavior: client().images.generate(prompt=behavior),
        lambda behavior: client().audio.speech.create(model="sim-tts", voice="alloy", input=behavior),
    ]:
        try:
            answer = call(script({"status": 429}))
        except openai.RateLimitError as error:
            assert error.code == "rate_limit_exceeded", repr(error)
        else:
            raise AssertionError(f"no error, but {answer}")


CASES = [embeddings, completions, completions_streamed, moderations, images, speech, transcriptions, errors]


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
