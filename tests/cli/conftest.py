import signal

import pytest
from click.testing import CliRunner, Result

from cvagent.cli import main
from cvagent.standin import TOKEN, StandIn
from cvagent.standin.recorded import install


@pytest.fixture
def stand_in():
    with StandIn() as running:
        yield running


@pytest.fixture
def settings(tmp_path, stand_in):
    """A recorded cluster, the stand-in and a store in a file, as environment variables."""
    return {
        "CVAGENT_CLOUDVISION_URL": stand_in.url,
        "CVAGENT_CLOUDVISION_TOKEN": TOKEN,
        "CVAGENT_SLURM_BIN_DIR": str(install(tmp_path / "bin")),
        "CVAGENT_STORE_URL": f"sqlite:///{tmp_path}/store.db",
        "CVAGENT_HTTP_LISTEN": "127.0.0.1:1",
        "CVAGENT_NODE_FACTS": "off",
    }


@pytest.fixture
def cvagent(monkeypatch, tmp_path, settings):
    """Runs a command as a person would, and returns what they see."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, **changes: str | None) -> Result:
        for name, value in (settings | changes).items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        return CliRunner().invoke(main, words)

    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)
