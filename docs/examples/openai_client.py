"""OpenAI's Python client, streaming:

    pip install openai
    SIFT_KEY=sk-sift-... python docs/examples/openai_client.py
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("SIFT_URL", "http://127.0.0.1:8787") + "/v1",
    api_key=os.environ["SIFT_KEY"],
)
stream = client.chat.completions.create(
    model=os.environ.get("SIFT_MODEL", "sift-tiny"),
    messages=[{"role": "user", "content": "Who are you?"}],
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    if chunk.usage:
        print("\n" + chunk.usage.model_dump_json())
