"""The plugin, loaded and run by optillm."""

import openai
import pytest

optillm = pytest.importorskip("optillm")

from optillm.server import execute_single_approach  # noqa: E402

from msjax.errors import InputError  # noqa: E402
from msjax.testing.server import MODEL, Reply, completion  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def ask(serve, tmp_path):
    """Asks through optillm, and the server that it asks."""
    folder = tmp_path / "optillm/plugins"
    folder.mkdir(parents=True)
    (folder / "msjax_plugin.py").write_text("from msjax.integrations.optillm import SLUG, run\n")
    optillm.server_config["plugins_dir"] = str(tmp_path)
    optillm.load_plugins()

    def script(number: int, request: dict) -> Reply:
        return Reply(completion(f"It is {('4', '5', '5', '4')[number]}."))

    server = serve(script)
    client = openai.OpenAI(base_url=server.url, api_key="k")

    def run(**request):
        system, question = "Be brief.", "2 + 3?"
        found = execute_single_approach("msjax", system, question, client, MODEL, request)
        return found, server

    yield run
    client.close()


def test_it_is_loaded_and_revises(ask):
    found, server = ask(temperature=0.3)
    assert found == ("It is 5.", 15)
    assert [len(request["messages"]) for request in server.asked] == [2, 4, 6]
    assert all(request["temperature"] == 0.3 for request in server.asked)


def test_options_come_with_the_request(ask):
    options = {"rule": "fixed+majority", "samples": 4}
    found, server = ask(extra_body={"msjax": options, "top_k": 5})
    assert found == ("It is 4.", 20)
    assert all(request["top_k"] == 5 and "msjax" not in request for request in server.asked)


def test_bad_options_are_named(ask):
    with pytest.raises(InputError, match="msjax.rounds is 'x'; options are rule, rounds"):
        ask(msjax={"rounds": "x"})
    with pytest.raises(InputError, match="learns from labelled runs"):
        ask(msjax={"rule": "markovscale"})
