import datetime as dt
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from cvagent.errors import SettingsError
from cvagent.settings import Listen, Secret, Settings, load, load_settings
from cvagent.settings.fields import ClusterSettings

TOKEN = "distinctive-token-7f3a"
GIVEN = ("cloudvision_url", "cloudvision_token", "store_url")
NEEDED = {"CVAGENT_CLOUDVISION_URL": "https://cvp.example.org", "CVAGENT_CLOUDVISION_TOKEN": TOKEN}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "DOCKER_SECRETS", tmp_path / "run-secrets")


def settings(**given):
    return load_settings(environ=NEEDED | {f"CVAGENT_{name}": value for name, value in given.items()})[0]


def wrong(environ=NEEDED, **given):
    """The lines of the refusal."""
    with pytest.raises(SettingsError) as refusal:
        load_settings(environ=dict(environ) | {f"CVAGENT_{name}": value for name, value in given.items()})
    return str(refusal.value).splitlines()


def secret_file(folder, text, name="token", mode=0o600):
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def token_file(tmp_path):
    return secret_file(tmp_path, f"{TOKEN}\n")


@pytest.fixture
def ca_file(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private CA")])
    start, end = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), dt.datetime(2050, 1, 1, tzinfo=dt.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, end)
    certificate = builder.sign(key, hashes.SHA256())
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


class TestDefaults:
    def test_two_settings_are_enough(self):
        assert load_settings(environ=NEEDED)[1] == []

    def test_each_default(self):
        found = settings().model_dump(include=set(ClusterSettings.model_fields) - set(GIVEN))
        assert found == {
            "cloudvision_token_file": None,
            "cloudvision_ca_file": None,
            "mode": "push",
            "cluster": None,
            "slurm_deployment": "native",
            "slurm_container": None,
            "slurm_user": None,
            "slurm_bin_dir": None,
            "slurm_conf": None,
            "slurm_timeout_s": 20,
            "job_interval_s": 30,
            "lookback_h": 24,
            "job_name_filter": re.compile("^(?!cv-)"),
            "partition_filter": re.compile(""),
            "store_url_file": None,
            "http_listen": Listen("127.0.0.1", 9410),
            "http_token_file": None,
            "log_level": "info",
            "log_format": "text",
            "removal_share": 0.30,
            "absent_rounds": 3,
            "hook_spool": None,
            "node_facts": "srun",
            "node_interval_s": 60,
            "node_facts_max_age_h": 24,
            "node_report_dir": None,
            "node_key": "node",
            "job_resources": "auto",
            "ssh_args": (),
            "ssh_fanout": 64,
            "node_report_token_file": None,
            "interface_filter": re.compile(""),
            "interface_kind": "all",
            "inventory_partition": None,
            "inventory_account": None,
            "inventory_qos": None,
            "inventory_reservation": None,
            "inventory_time_s": 60,
            "inventory_args": (),
            "inventory_allow": re.compile(""),
        }
        assert settings().store_secret.value() == "sqlite://"

    def test_an_empty_value_counts_as_not_given(self):
        assert settings(CLUSTER="", LOG_LEVEL=" ", JOB_NAME_FILTER="") == settings()

    def test_frozen(self):
        with pytest.raises(ValidationError):
            settings().mode = "pull"

    def test_arguments_are_the_only_source_of_the_class(self, monkeypatch):
        monkeypatch.setenv("CVAGENT_MODE", "pull")
        found = Settings(cloudvision_url="https://cvp", cloudvision_token=TOKEN)
        assert found.mode == "push"

    def test_every_setting_is_described(self):
        assert all(field.description for field in Settings.model_fields.values())


class TestRight:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("MODE", "pull", "pull"),
            ("MODE", "BOTH", "both"),
            ("CLUSTER", "hpc_1.a-b", "hpc_1.a-b"),
            ("SLURM_CONF", "/etc/slurm/slurm.conf", Path("/etc/slurm/slurm.conf")),
            ("SLURM_TIMEOUT_S", "1", 1),
            ("SLURM_TIMEOUT_S", "600", 600),
            ("JOB_INTERVAL_S", "1", 1),
            ("JOB_INTERVAL_S", "3600", 3600),
            ("LOOKBACK_H", "0", 0),
            ("LOOKBACK_H", "0.5", 0.5),
            ("LOOKBACK_H", "720", 720),
            ("JOB_NAME_FILTER", "^train", re.compile("^train")),
            ("PARTITION_FILTER", "gpu|cpu", re.compile("gpu|cpu")),
            ("HTTP_LISTEN", "off", None),
            ("HTTP_LISTEN", "127.0.0.2:1", Listen("127.0.0.2", 1)),
            ("HTTP_LISTEN", "[::1]:65535", Listen("::1", 65535)),
            ("HTTP_LISTEN", "localhost:0", Listen("localhost", 0)),
            ("LOG_LEVEL", "WARNING", "warning"),
            ("LOG_FORMAT", "json", "json"),
            ("REMOVAL_SHARE", "0", 0),
            ("REMOVAL_SHARE", "1", 1),
            ("ABSENT_ROUNDS", "1", 1),
            ("ABSENT_ROUNDS", "100", 100),
        ],
    )
    def test_value(self, name, text, value):
        assert getattr(settings(**{name: text}), name.lower()) == value

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("https://CVP.example.org/", "https://cvp.example.org"),
            ("https://cvp:8443", "https://cvp:8443"),
            ("https://192.0.2.1", "https://192.0.2.1"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("HTTPS://www.arista.io", "https://www.arista.io"),
            ("https://www.cv-prod-us-central1-b.arista.io", "https://www.cv-prod-us-central1-b.arista.io"),
            ("https://notarista.io", "https://notarista.io"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost", "http://localhost"),
        ],
    )
    def test_cloudvision_url(self, text, url):
        assert settings(CLOUDVISION_URL=text).cloudvision_url == url

    @pytest.mark.parametrize(
        "url",
        [
            "sqlite://",
            "sqlite:///state.db",
            "sqlite:////var/lib/cvagent/state.db",
            "postgresql://cvagent:p%40ss@db:5432/cvagent",
            "postgresql:///cvagent?host=/run/postgresql",
        ],
    )
    def test_store_url(self, url):
        assert settings(STORE_URL=url).store_secret.value() == url

    def test_store_url_from_a_file(self, tmp_path):
        path = secret_file(tmp_path, "postgresql://me:hidden@db/x\n")
        assert settings(STORE_URL_FILE=str(path)).store_secret.value() == "postgresql://me:hidden@db/x"

    def test_ca_file(self, ca_file):
        assert settings(CLOUDVISION_CA_FILE=str(ca_file)).cloudvision_ca_file == ca_file

    def test_docker_with_its_container(self):
        found = settings(SLURM_DEPLOYMENT="docker", SLURM_CONTAINER="slurmctld", SLURM_BIN_DIR="/only/in/there")
        assert (found.slurm_container, found.slurm_bin_dir) == ("slurmctld", Path("/only/in/there"))

    def test_bin_dir_of_native_is_a_directory(self, tmp_path):
        assert settings(SLURM_BIN_DIR=str(tmp_path)).slurm_bin_dir == tmp_path

    def test_beyond_loopback_with_a_token(self, token_file):
        found = settings(HTTP_LISTEN="0.0.0.0:9410", HTTP_TOKEN_FILE=str(token_file))
        assert not found.http_listen.loopback
        assert found.http_secret.value() == TOKEN

    def test_on_loopback_no_token_is_needed(self):
        assert settings().http_secret is None


class TestWrong:
    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            ("MODE", "pusch", "must be 'push', 'pull' or 'both'"),
            ("CLUSTER", "a b", "letters, digits and"),
            ("CLUSTER", "a@b", "letters, digits and"),
            ("SLURM_DEPLOYMENT", "podman", "must be 'native' or 'docker'"),
            ("SLURM_BIN_DIR", "/not/here", "must be a directory on this machine"),
            ("SLURM_TIMEOUT_S", "0", "1 to 600"),
            ("SLURM_TIMEOUT_S", "601", "1 to 600"),
            ("SLURM_TIMEOUT_S", "20s", "1 to 600"),
            ("SLURM_TIMEOUT_S", "nan", "1 to 600"),
            ("JOB_INTERVAL_S", "0.5", "1 to 3600"),
            ("JOB_INTERVAL_S", "3601", "1 to 3600"),
            ("LOOKBACK_H", "-1", "0 to 720"),
            ("LOOKBACK_H", "721", "0 to 720"),
            ("JOB_NAME_FILTER", "(", "is no regular expression: missing )"),
            ("PARTITION_FILTER", "*", "is no regular expression: nothing to repeat"),
            ("STORE_URL", "mysql://db/x", "must begin with sqlite:// or postgresql://"),
            ("STORE_URL", "sqlite://state.db", "sqlite:///relative"),
            ("STORE_URL", "state.db", "must begin with sqlite://"),
            ("HTTP_LISTEN", "9410", "must be host:port"),
            ("HTTP_LISTEN", ":9410", "must be host:port"),
            ("HTTP_LISTEN", "::1:9410", "must be host:port"),
            ("HTTP_LISTEN", "[::x]:9410", "must be host:port"),
            ("HTTP_LISTEN", "localhost:65536", "must be host:port"),
            ("LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
            ("LOG_FORMAT", "xml", "must be 'text' or 'json'"),
            ("REMOVAL_SHARE", "1.1", "0 to 1"),
            ("REMOVAL_SHARE", "30%", "0 to 1"),
            ("ABSENT_ROUNDS", "0", "1 to 100"),
            ("ABSENT_ROUNDS", "101", "1 to 100"),
            ("ABSENT_ROUNDS", "2.5", "1 to 100"),
            ("CLOUDVISION_CA_FILE", "/not/here.pem", "cannot be read: No such file or directory"),
        ],
    )
    def test_value(self, name, text, reason):
        [line] = wrong(**{name: text})
        assert line.startswith(f"CVAGENT_{name}=")
        assert reason in line
        if name != "STORE_URL":
            assert repr(text) in line

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("cvp.example.org", "must be https://host"),
            ("ftp://cvp", "must be https://host"),
            ("https://", "must be https://host"),
            ("https://cvp:0", "must be https://host"),
            ("https://cvp:99999", "must be https://host"),
            ("https://[::1", "must be https://host"),
            ("https://a b", "must be https://host"),
            ("https://cvp/api", "must hold no path"),
            ("https://cvp?x=1", "must hold no path"),
            ("http://cvp.example.org", "loopback only"),
            ("http://127.0.0.1.example.org", "loopback only"),
            ("http://0.0.0.0", "loopback only"),
            ("https://arista.io", "use https://www.arista.io"),
            ("https://cv-prod-x.arista.io", "use https://www.cv-prod-x.arista.io"),
            ("https://apiserver.arista.io:443", "use https://www.arista.io"),
        ],
    )
    def test_cloudvision_url(self, url, reason):
        [line] = wrong(CLOUDVISION_URL=url)
        assert line.startswith("CVAGENT_CLOUDVISION_URL=")
        assert reason in line

    def test_a_ca_file_without_a_certificate(self, tmp_path):
        (tmp_path / "ca.pem").write_text("nothing of the kind")
        assert "no certificate in PEM form" in wrong(CLOUDVISION_CA_FILE=str(tmp_path / "ca.pem"))[0]

    def test_a_ca_file_that_is_a_directory(self, tmp_path):
        assert wrong(CLOUDVISION_CA_FILE=str(tmp_path))[0].startswith("CVAGENT_CLOUDVISION_CA_FILE=")

    def test_no_url(self):
        [line] = wrong({"CVAGENT_CLOUDVISION_TOKEN": TOKEN})
        assert line.startswith("CVAGENT_CLOUDVISION_URL: is required")

    def test_no_token(self):
        [line] = wrong({"CVAGENT_CLOUDVISION_URL": "https://cvp"})
        assert "give either CVAGENT_CLOUDVISION_TOKEN or CVAGENT_CLOUDVISION_TOKEN_FILE" in line

    def test_two_tokens(self, token_file):
        assert "give either" in wrong(CLOUDVISION_TOKEN_FILE=str(token_file))[0]

    def test_docker_without_a_container(self):
        [line] = wrong(SLURM_DEPLOYMENT="docker")
        assert line.startswith("CVAGENT_SLURM_CONTAINER: is needed when CVAGENT_SLURM_DEPLOYMENT is docker")

    def test_two_stores(self, tmp_path):
        path = secret_file(tmp_path, "postgresql://db/x")
        assert "give either" in wrong(STORE_URL="sqlite:///x", STORE_URL_FILE=str(path))[0]

    @pytest.mark.parametrize("listen", ["0.0.0.0:9410", "[::]:9410", "192.0.2.1:9410", "head.example.org:9410"])
    def test_beyond_loopback_without_a_token(self, listen):
        [line] = wrong(HTTP_LISTEN=listen)
        assert line.startswith("CVAGENT_HTTP_TOKEN_FILE: is needed when CVAGENT_HTTP_LISTEN is beyond loopback")

    def test_every_wrong_setting_has_its_line(self):
        lines = wrong({}, MODE="x", SLURM_TIMEOUT_S="x", SLURM_DEPLOYMENT="docker", HTTP_LISTEN="[::]:1", TYPO="x")
        assert {re.split("[=:]", line)[0] for line in lines} == {
            "CVAGENT_TYPO",
            "CVAGENT_CLOUDVISION_URL",
            "CVAGENT_CLOUDVISION_TOKEN_FILE",
            "CVAGENT_MODE",
            "CVAGENT_SLURM_CONTAINER",
            "CVAGENT_SLURM_TIMEOUT_S",
            "CVAGENT_HTTP_TOKEN_FILE",
        }


class TestTypos:
    def test_the_nearest_name_is_suggested(self):
        [line] = wrong(LOG_LEVLE="info")
        assert line == "CVAGENT_LOG_LEVLE: there is no such setting; did you mean CVAGENT_LOG_LEVEL?"

    def test_lower_case_is_a_typo(self):
        [line] = wrong(dict(NEEDED, cvagent_mode="push"))
        assert "did you mean CVAGENT_MODE?" in line

    def test_nothing_near(self):
        assert "docs/settings.md" in wrong(QQQQQQQQ="1")[0]

    def test_in_the_env_file_too(self, tmp_path):
        (tmp_path / ".env").write_text("CVAGENT_SLURM_TIMEOUT=5\n")
        assert "CVAGENT_SLURM_TIMEOUT_S?" in wrong()[0]

    def test_its_value_is_not_shown(self):
        assert TOKEN not in "".join(wrong(CLOUDVISION_TOKN=TOKEN))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT_HTTP", "9410"),
            ("PORT", "tcp://10.0.0.1:9410"),
            ("PORT_9410_TCP_ADDR", "10.0.0.1"),
        ],
    )
    def test_what_kubernetes_adds_is_no_typo(self, name, value):
        assert settings(**{name: value}) == settings()

    def test_a_port_set_by_a_person_is_one(self):
        assert wrong(PORT="9410")[0].startswith("CVAGENT_PORT:")


class TestSecretsStayUnseen:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("CLOUDVISION_TOKEN", "sesame open"),
            ("CLOUDVISION_TOKEN", "sesamé"),
            ("CLOUDVISION_TOKEN_FILE", "sesame"),
            ("HTTP_TOKEN_FILE", "sesame"),
            ("STORE_URL_FILE", "postgresql://me:sesame@db/x"),
            ("STORE_URL", "mysql://me:sesame@db/x"),
            ("STORE_URL", "sesame"),
            ("STORE_URL", "postgresql://me:sesame/x@db/x"),
            ("STORE_URL", "postgresql://me:12#sesame@db/x"),
            ("STORE_URL", "postgresql://me:12/sesame@db/x"),
            ("STORE_URL", "postgresql://me:ses@sesame@db/x"),
            ("STORE_URL", "postgresql://me:sesame"),
            ("STORE_URL", "postgresql://db/x?password=sesame word"),
            ("CLOUDVISION_URL", "https://me:sesame@cvp"),
            ("CLOUDVISION_URL", "https://me:ses@me-sesame@cvp"),
            ("CLOUDVISION_URL", "https://me:12/sesame@cvp"),
            ("CLOUDVISION_URL", "https://me:12#sesame@cvp"),
            ("CLOUDVISION_URL", "https://me:sesame"),
            ("CLOUDVISION_URL", "https://cvp/?token=sesame"),
            ("CLOUDVISION_URL", "https://cvp/#sesame"),
            ("CLOUDVISION_URL", "me:sesame@cvp"),
            ("CLOUDVISION_URL", "https://[sesame"),
        ],
    )
    def test_in_a_refusal(self, name, text):
        environ = {"CVAGENT_CLOUDVISION_URL": NEEDED["CVAGENT_CLOUDVISION_URL"]} if "TOKEN" in name else NEEDED
        lines = wrong(environ, **{name: text})
        assert any(f"CVAGENT_{name}=" in line for line in lines)
        assert not re.search("ses|sam[eé]", "".join(lines).replace("https://[sesame", ""))

    def test_in_the_chain_of_a_refusal(self):
        with pytest.raises(SettingsError) as refusal:
            load_settings(environ=NEEDED | {"CVAGENT_CLOUDVISION_TOKEN": f"{TOKEN} {TOKEN}"})
        assert refusal.value.__cause__ is None
        assert refusal.value.__context__ is None

    def test_in_repr(self, token_file):
        found = settings(STORE_URL="postgresql://me:sesame@db/x", HTTP_TOKEN_FILE=str(token_file))
        assert found.http_secret.value() == TOKEN
        for shown in (repr(found), str(found), repr(found.cloudvision_secret), repr(found.http_secret)):
            assert TOKEN not in shown
            assert "sesame" not in shown

    def test_texts_for_the_log_filter(self, token_file):
        found = settings(STORE_URL="postgresql://me:s%40same@db/x", HTTP_TOKEN_FILE=str(token_file))
        assert set(found.secret_texts()) == {TOKEN, "s%40same", "s@same"}

    def test_no_text_before_a_file_was_read(self, token_file):
        environ = {"CVAGENT_CLOUDVISION_URL": "https://cvp", "CVAGENT_CLOUDVISION_TOKEN_FILE": str(token_file)}
        found, _ = load_settings(environ=environ)
        assert found.secret_texts() == []
        found.cloudvision_secret.value()
        assert found.secret_texts() == [TOKEN]


class TestOlderNames:
    @pytest.mark.parametrize(
        ("older", "value", "setting", "meant"),
        [
            ("CLOUDROCK_SYNC_DIRECTION", "pull", "mode", "pull"),
            ("WALDUR_SYNC_DIRECTION", "pull", "mode", "pull"),
            ("LOCATION", "hpc", "cluster", "hpc"),
            ("SLURM_DEPLOYMENT", "native", "slurm_deployment", "native"),
            ("SLURM_DEPLOYMENT_TYPE", "native", "slurm_deployment", "native"),
            ("SLURM_CONTAINER_NAME", "slurmctld", "slurm_container", "slurmctld"),
        ],
    )
    def test_is_taken_with_a_line(self, older, value, setting, meant):
        found, notes = load_settings(environ=NEEDED | {older: value})
        assert getattr(found, setting) == meant
        assert notes == [f"{older} is deprecated: use CVAGENT_{setting.upper()}"]

    @pytest.mark.parametrize(
        ("server", "url"),
        [
            ("cvp.example.org", "https://cvp.example.org"),
            ("cvp.example.org:8443", "https://cvp.example.org:8443"),
            ("https://cvp.example.org", "https://cvp.example.org"),
        ],
    )
    def test_server_and_token(self, server, url):
        found, notes = load_settings(environ={"API_SERVER": server, "API_TOKEN": TOKEN})
        assert (found.cloudvision_url, found.cloudvision_secret.value()) == (url, TOKEN)
        assert notes == [
            "API_SERVER is deprecated: use CVAGENT_CLOUDVISION_URL",
            "API_TOKEN is deprecated: use CVAGENT_CLOUDVISION_TOKEN",
        ]

    def test_ours_wins(self):
        found, notes = load_settings(environ=NEEDED | {"LOCATION": "old", "CVAGENT_CLUSTER": "new"})
        assert found.cluster == "new"
        assert notes == ["LOCATION is deprecated and ignored: CVAGENT_CLUSTER is given too"]

    def test_ours_wins_from_the_env_file(self, tmp_path):
        (tmp_path / ".env").write_text("CVAGENT_CLUSTER=new\n")
        assert load_settings(environ=NEEDED | {"LOCATION": "old"})[0].cluster == "new"

    def test_our_token_file_wins_over_their_token(self, token_file):
        environ = {"CVAGENT_CLOUDVISION_URL": "https://cvp", "CVAGENT_CLOUDVISION_TOKEN_FILE": str(token_file)}
        found, notes = load_settings(environ=environ | {"API_TOKEN": "other"})
        assert found.cloudvision_secret.value() == TOKEN
        assert notes == ["API_TOKEN is deprecated and ignored: CVAGENT_CLOUDVISION_TOKEN_FILE is given too"]

    def test_a_wrong_value_is_told_under_the_name_as_written(self):
        [line] = wrong(NEEDED | {"WALDUR_SYNC_DIRECTION": "sideways"})
        assert line.startswith("WALDUR_SYNC_DIRECTION='sideways': must be")

    def test_a_wrong_token_is_not_shown(self):
        lines = wrong({"API_SERVER": "me:sesame@cvp", "API_TOKEN": "sesame open"})
        assert [line.split("=")[0] for line in lines] == ["API_SERVER", "API_TOKEN"]
        assert "sesame" not in "".join(lines)


class TestEnvFile:
    def write(self, path, **given):
        path.write_text("".join(f"CVAGENT_{name}={value}\n" for name, value in given.items()))
        return path

    def test_in_the_working_directory(self, tmp_path):
        self.write(tmp_path / ".env", MODE="pull")
        assert settings().mode == "pull"

    def test_named_by_the_environment(self, tmp_path):
        path = self.write(tmp_path / "agent.env", MODE="pull")
        assert settings(ENV_FILE=str(path)).mode == "pull"

    def test_named_by_the_caller_beats_the_one_of_the_environment(self, tmp_path):
        named = self.write(tmp_path / "named.env", MODE="both")
        other = self.write(tmp_path / "other.env", MODE="pull")
        found, _ = load_settings(named, NEEDED | {"CVAGENT_ENV_FILE": str(other)})
        assert found.mode == "both"

    def test_a_named_one_replaces_the_one_in_the_working_directory(self, tmp_path):
        self.write(tmp_path / ".env", MODE="pull")
        path = self.write(tmp_path / "agent.env", CLUSTER="hpc")
        assert settings(ENV_FILE=str(path)).mode == "push"

    def test_the_environment_wins(self, tmp_path):
        self.write(tmp_path / ".env", MODE="pull", CLUSTER="hpc")
        found = settings(MODE="both", CLUSTER="")
        assert (found.mode, found.cluster) == ("both", "hpc")

    def test_names_of_other_programs_are_left_alone(self, tmp_path):
        (tmp_path / ".env").write_text("# a comment\nCOMPOSE_PROJECT_NAME=x\n\nexport CVAGENT_MODE='pull' # why\n")
        assert settings().mode == "pull"

    def test_a_named_one_must_be_there(self, tmp_path):
        assert wrong(ENV_FILE=str(tmp_path / "none.env")) == [f"{tmp_path}/none.env: there is no such env file"]
        assert "no such env file" in wrong(ENV_FILE=str(tmp_path))[0]

    def test_one_that_is_no_text(self, tmp_path):
        (tmp_path / ".env").write_bytes(b"CVAGENT_MODE=\xff\n")
        assert wrong() == [".env: the env file cannot be read: it is not UTF-8"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_one_that_may_not_be_read(self, tmp_path):
        self.write(tmp_path / ".env", MODE="pull").chmod(0)
        assert wrong() == [".env: the env file cannot be read: Permission denied"]

    def test_a_directory_of_that_name_is_none(self, tmp_path):
        (tmp_path / ".env").mkdir()
        assert settings().mode == "push"

    def test_the_environment_of_the_process_is_the_default(self, monkeypatch):
        for name, value in (NEEDED | {"CVAGENT_MODE": "pull"}).items():
            monkeypatch.setenv(name, value)
        assert load_settings()[0].mode == "pull"


class TestTokenFiles:
    URL = {"CVAGENT_CLOUDVISION_URL": "https://cvp"}  # noqa: RUF012

    def test_token_from_a_file(self, token_file):
        found, notes = load_settings(environ=self.URL | {"CVAGENT_CLOUDVISION_TOKEN_FILE": str(token_file)})
        assert (found.cloudvision_secret.value(), notes) == (TOKEN, [])

    def test_from_systemd(self, tmp_path):
        secret_file(tmp_path, TOKEN, "cloudvision_token")
        found, _ = load_settings(environ=self.URL | {"CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert found.cloudvision_secret.value() == TOKEN

    def test_from_docker(self, tmp_path):
        (tmp_path / "run-secrets").mkdir()
        secret_file(tmp_path / "run-secrets", TOKEN, "cloudvision_token")
        for environ in (self.URL, self.URL | {"CREDENTIALS_DIRECTORY": str(tmp_path)}):
            assert load_settings(environ=environ)[0].cloudvision_secret.value() == TOKEN

    def test_a_setting_wins_over_what_is_provided(self, tmp_path):
        secret_file(tmp_path, "other", "cloudvision_token")
        found, _ = load_settings(environ=NEEDED | {"CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert found.cloudvision_secret.value() == TOKEN
        found, _ = load_settings(
            environ=self.URL | {"API_TOKEN": TOKEN, "CREDENTIALS_DIRECTORY": str(tmp_path)},
        )
        assert found.cloudvision_secret.value() == TOKEN

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is empty"),
            ("\n", "is empty"),
            ("two words", "holds a space"),
            (f"{TOKEN}\n\n", "holds a space"),
            ("tok\x00en", "a control character"),
            ("tokén", "beyond ASCII"),
        ],
    )
    def test_a_file_without_a_token(self, tmp_path, text, reason):
        path = secret_file(tmp_path, text)
        [line] = wrong(self.URL, CLOUDVISION_TOKEN_FILE=str(path))
        assert line.startswith(f"CVAGENT_CLOUDVISION_TOKEN_FILE='{path}'")
        assert reason in line
        assert not text.strip() or text.strip() not in line

    def test_a_store_file_with_a_wrong_url(self, tmp_path):
        path = secret_file(tmp_path, "mysql://me:sesame@db/x")
        [line] = wrong(STORE_URL_FILE=str(path))
        assert "must begin with sqlite:// or postgresql://" in line
        assert "sesame" not in line

    def test_one_that_everybody_can_read_is_noted(self, token_file):
        token_file.chmod(0o644)
        _, notes = load_settings(environ=self.URL | {"CVAGENT_CLOUDVISION_TOKEN_FILE": str(token_file)})
        assert notes == [f"{token_file} can be read by everybody (mode 0644): chmod 600"]

    def test_one_that_the_group_can_read_is_not(self, token_file):
        token_file.chmod(0o640)
        assert load_settings(environ=self.URL | {"CVAGENT_CLOUDVISION_TOKEN_FILE": str(token_file)})[1] == []


class TestSecret:
    def replace(self, path, text):
        other = path.with_suffix(".new")
        other.write_text(text)
        other.replace(path)

    def test_text(self):
        assert Secret(text=TOKEN).value() == Secret(text=TOKEN).reread() == TOKEN

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_one_newline_is_dropped(self, tmp_path, end):
        path = tmp_path / "token"
        path.write_bytes(f"{TOKEN}{end}".encode())
        assert Secret(path=path).value() == TOKEN

    def test_a_replaced_file_is_read_again(self, token_file):
        secret = Secret(path=token_file)
        assert secret.value() == TOKEN
        self.replace(token_file, "another")
        assert secret.value() == "another"

    def test_a_rewritten_file_is_read_again(self, token_file):
        secret = Secret(path=token_file)
        secret.value()
        token_file.write_text("longer-than-before-by-far")
        assert secret.value() == "longer-than-before-by-far"

    def test_an_unchanged_file_is_not(self, token_file):
        secret = Secret(path=token_file)
        secret.value()
        self.look_unchanged(token_file, "x" * len(f"{TOKEN}\n"))
        assert secret.value() == TOKEN

    def test_reread_reads_it_all_the_same(self, token_file):
        secret = Secret(path=token_file)
        secret.value()
        self.look_unchanged(token_file, "x" * len(f"{TOKEN}\n"))
        assert secret.reread() == "x" * len(f"{TOKEN}\n")

    def look_unchanged(self, path, text):
        """Write in place and put the time back: only the content tells the difference."""
        before = path.stat()
        path.write_text(text)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def test_the_text_before_stays_unseen_too(self, token_file):
        secret = Secret(path=token_file)
        assert secret.texts() == ()
        for text in (TOKEN, "second", "second"):
            self.replace(token_file, text)
            secret.reread()
        assert secret.texts() == ("second", TOKEN)

    def test_a_missing_file(self, tmp_path):
        path = tmp_path / "none"
        for ask in (Secret(path=path).value, Secret(path=path).reread):
            with pytest.raises(SettingsError, match=rf"^{path}: cannot be read: No such file or directory$"):
                ask()

    def test_a_file_that_went_empty_is_no_empty_token(self, token_file):
        secret = Secret(path=token_file)
        secret.value()
        self.replace(token_file, "\n")
        with pytest.raises(SettingsError, match="is empty"):
            secret.value()
        self.replace(token_file, "mended")
        assert secret.value() == "mended"

    def test_garbage_is_not_shown(self, token_file):
        self.replace(token_file, f"{TOKEN} {TOKEN}")
        with pytest.raises(SettingsError) as refusal:
            Secret(path=token_file).value()
        assert TOKEN not in str(refusal.value)
        assert str(token_file) in str(refusal.value)

    def test_equal_when_from_the_same_place(self, token_file, tmp_path):
        read = Secret(path=token_file)
        read.value()
        assert {read, Secret(text="a")} == {Secret(path=token_file), Secret(text="a")}
        assert Secret(text="a") != Secret(text="b")
        assert Secret(path=token_file) != Secret(path=tmp_path / "other")
        assert Secret(text="a") != "a"

    def test_repr(self, token_file):
        assert TOKEN not in repr(Secret(text=TOKEN))
        assert str(token_file) in repr(Secret(path=token_file))

    def test_many_threads_see_one_or_the_other(self, token_file):
        secret = Secret(path=token_file)
        seen = []
        threads = [threading.Thread(target=lambda: seen.extend(secret.value() for _ in range(50))) for _ in range(4)]
        for thread in threads:
            thread.start()
        self.replace(token_file, "another")
        for thread in threads:
            thread.join()
        assert set(seen) <= {TOKEN, "another"}
        assert secret.value() == "another"


def test_import_reads_nothing(tmp_path):
    (tmp_path / ".env").write_text("CVAGENT_MODE=wrong\n")
    command = [sys.executable, "-c", "import cvagent.settings"]
    done = subprocess.run(command, cwd=tmp_path, env={"CVAGENT_MODE": "wrong"}, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
