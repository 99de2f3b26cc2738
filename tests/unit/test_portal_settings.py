import pytest

from cvagent.app import flows_for
from cvagent.errors import SettingsError
from cvagent.settings import load, load_settings

TOKEN = "distinctive-portal-token-51c2"
OFFERING = "6ec3bd5f14a24ee5b5a3d1c9e4ad7d2b"
NEEDED = {"CVAGENT_CLOUDVISION_URL": "https://cvp.example.org", "CVAGENT_CLOUDVISION_TOKEN": "another-token"}
PORTAL = {
    "CVAGENT_PORTAL_URL": "https://portal.example.org",
    "CVAGENT_PORTAL_TOKEN": TOKEN,
    "CVAGENT_PORTAL_OFFERING": OFFERING,
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "DOCKER_SECRETS", tmp_path / "run-secrets")


def settings(**given):
    return load_settings(environ=NEEDED | {f"CVAGENT_{name}": value for name, value in given.items()})[0]


def wrong(environ):
    with pytest.raises(SettingsError) as refusal:
        load_settings(environ=NEEDED | environ)
    return str(refusal.value).splitlines()


def test_without_a_portal_nothing_of_it_is_needed():
    found = settings()
    assert (found.portal_url, found.portal_token, found.portal_token_file, found.portal_offering) == (None,) * 4
    assert found.secret_texts() == ["another-token"]


def test_without_cloudvision_nothing_of_it_is_needed(tmp_path):
    (tmp_path / "cloudvision_token").write_text("provided-all-the-same")
    found, notes = load_settings(environ=PORTAL | {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (found.cloudvision_url, found.cloudvision_token, found.cloudvision_token_file) == (None,) * 3
    assert notes == ["CVAGENT_CLOUDVISION_URL is not set: the portal alone is served"]
    assert found.secret_texts() == [TOKEN]


@pytest.mark.parametrize("name", ["CVAGENT_CLOUDVISION_TOKEN", "API_TOKEN", "CVAGENT_CLOUDVISION_TOKEN_FILE"])
def test_a_token_for_cloudvision_wants_its_address(name, tmp_path):
    (tmp_path / "token").write_text("a-token")
    value = str(tmp_path / "token")
    with pytest.raises(SettingsError, match=rf"\ACVAGENT_CLOUDVISION_URL: is required with {name} \(.*\)\Z"):
        load_settings(environ=PORTAL | {name: value})


@pytest.mark.parametrize(
    ("mode", "flows"),
    [
        ("push", ["usage"]),
        ("pull", ["accounts", "order_states", "members", "associations"]),
        ("both", ["usage", "accounts", "order_states", "members", "associations"]),
    ],
)
def test_without_cloudvision_there_are_the_flows_of_the_portal(mode, flows):
    found, _ = load_settings(environ=PORTAL | {"CVAGENT_MODE": mode})
    assert [flow.name for flow in flows_for(found)] == flows


def test_each_default():
    found = load_settings(environ=NEEDED | PORTAL)[0]
    assert (found.portal_dialect, found.portal_interval_s, found.portal_usernames) == ("auto", 60, "offering")
    assert (found.portal_ca_file, str(found.components_file)) == (None, "config-components.yaml")
    prefixes = (found.account_customer_prefix, found.account_project_prefix, found.account_allocation_prefix)
    assert prefixes == ("hpc_",) * 3
    assert (found.account_name_max_len, found.account_default, found.account_homedirs) == (34, None, False)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https://Portal.Example.org/", "https://portal.example.org"),
        ("https://portal.example.org/api", "https://portal.example.org"),
        ("https://portal.example.org/api/", "https://portal.example.org"),
        ("https://portal.example.org:8443/waldur/api/", "https://portal.example.org:8443/waldur"),
        ("http://127.0.0.1:8481", "http://127.0.0.1:8481"),
        ("http://[::1]:8481/api/", "http://[::1]:8481"),
    ],
)
def test_address(text, meant):
    assert load_settings(environ=NEEDED | PORTAL | {"CVAGENT_PORTAL_URL": text})[0].portal_url == meant


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("PORTAL_URL", "http://portal.example.org", "http:// is for loopback only"),
        ("PORTAL_URL", "portal.example.org", "must be https://host"),
        ("PORTAL_URL", "https://me:sesame@portal.example.org/api/", "no credentials"),
        ("PORTAL_URL", "https://portal.example.org/api/?token=sesame", "must"),
        ("PORTAL_OFFERING", "6ec3", "must be a uuid"),
        ("PORTAL_DIALECT", "klingon", "'order-items', 'orders'"),
        ("PORTAL_INTERVAL_S", "1", "5 to 3600"),
        ("PORTAL_USERNAMES", "ldap", "'offering', 'freeipa' or 'portal'"),
        ("ACCOUNT_PROJECT_PREFIX", "a b", "letters, digits, _ and -"),
        ("ACCOUNT_NAME_MAX_LEN", "3", "account name is cut"),
        ("ACCOUNT_DEFAULT", "--parent=x", "becomes a user's default"),
    ],
)
def test_wrong(name, text, reason):
    [line] = wrong(PORTAL | {f"CVAGENT_{name}": text})
    assert line.startswith(f"CVAGENT_{name}=")
    assert reason in line
    assert "sesame" not in line


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("CVAGENT_PORTAL_TOKEN", "CVAGENT_PORTAL_TOKEN_FILE: this or CVAGENT_PORTAL_TOKEN is needed"),
        ("CVAGENT_PORTAL_OFFERING", "CVAGENT_PORTAL_OFFERING: is needed with CVAGENT_PORTAL_URL"),
    ],
)
def test_a_portal_needs(missing, told):
    [line] = wrong({name: value for name, value in PORTAL.items() if name != missing})
    assert line.startswith(told)


def test_two_tokens(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    [line] = wrong(PORTAL | {"CVAGENT_PORTAL_TOKEN_FILE": str(tmp_path / "token")})
    assert "give either" in line


def test_the_token_from_systemd(tmp_path):
    (tmp_path / "portal_token").write_text(TOKEN)
    (tmp_path / "portal_token").chmod(0o644)
    environ = {name: value for name, value in PORTAL.items() if name != "CVAGENT_PORTAL_TOKEN"}
    found, notes = load_settings(environ=NEEDED | environ | {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert found.portal_secret.value() == TOKEN
    assert found.secret_texts() == ["another-token", TOKEN]
    assert notes == [f"{tmp_path}/portal_token can be read by everybody (mode 0644): chmod 600"]


@pytest.mark.parametrize("family", ["CLOUDROCK", "WALDUR"])
def test_the_names_of_the_family(family):
    older = {
        f"{family}_API_URL": "https://portal.example.org/api/",
        f"{family}_API_TOKEN": TOKEN,
        f"{family}_OFFERING_UUID": OFFERING,
        f"{family}_SYNC_DIRECTION": "push",
        f"{family}_SLURM_USERNAME_SOURCE": "local",
        "SLURM_CUSTOMER_PREFIX": "c_",
        "SLURM_PROJECT_PREFIX": "p_",
        "SLURM_ALLOCATION_PREFIX": "a_",
        "SLURM_ALLOCATION_NAME_MAX_LEN": "30",
        "SLURM_DEFAULT_ACCOUNT": "general",
        "SLURM_TRES_CONFIG_PATH": "/etc/components.yaml",
        "ENABLE_USER_HOMEDIR_ACCOUNT_CREATION": "true",
        "REQUESTS_VERIFY_SSL": "true",
    }
    found, notes = load_settings(environ=NEEDED | older)
    assert (found.portal_url, found.portal_secret.value()) == ("https://portal.example.org", TOKEN)
    assert (found.portal_offering, found.mode, found.portal_usernames) == (OFFERING, "push", "offering")
    assert (found.account_customer_prefix, found.account_project_prefix, found.account_allocation_prefix) == (
        "c_",
        "p_",
        "a_",
    )
    assert (found.account_name_max_len, found.account_default, found.account_homedirs) == (30, "general", True)
    assert str(found.components_file) == "/etc/components.yaml"
    assert sorted(note.partition(" is deprecated: ")[0] for note in notes) == sorted(older)


def test_certificates_are_always_verified():
    [line] = wrong(PORTAL | {"REQUESTS_VERIFY_SSL": "false"})
    assert line.startswith("REQUESTS_VERIFY_SSL=false: certificates are always verified; CVAGENT_PORTAL_CA_FILE names")


def test_an_older_token_is_not_shown():
    lines = wrong({"CLOUDROCK_API_TOKEN": "sesame open", "CLOUDROCK_API_URL": "https://me:sesame@portal"})
    assert "sesame" not in "".join(lines)
