"""What the tests of the stand-in say to it, and the documents they send."""

import json

import requests

API = "/api/resources/computejob/v1/"


class Client:
    """What a test says to a stand-in. Never follows a redirect, never reads the environment."""

    def __init__(self, stand_in, verify=True):
        self.stand_in = stand_in
        self.token = stand_in.token
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = verify

    def ask(self, method, path, document=None, timeout_s=10, **options):
        headers = {"authorization": f"Bearer {self.token}"}
        return self.session.request(
            method,
            self.stand_in.url + API + path,
            json=document,
            headers=headers,
            timeout=timeout_s,
            allow_redirects=False,
            **options,
        )

    def post(self, path, document, **options):
        return self.ask("POST", path, document, **options)

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def control(self, path, document):
        return self.session.post(f"{self.stand_in.url}/standin/{path}", json=document, timeout=10)

    def state(self):
        return self.session.get(f"{self.stand_in.url}/standin/state", timeout=10).json()


def job(key="4711@lab", /, **changes):
    """Build a valid JobConfig; a change to None takes the field away."""
    fields = {
        "key": {"id": key},
        "name": "train@batch",
        "state": "JOB_STATE_RUNNING",
        "start_time": "2026-03-01T10:30:00Z",
        "location": "lab",
        "nodes": {"values": ["node1", "node2"]},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def ended(key="4711@lab", /, **changes):
    return job(key, **{"state": "JOB_STATE_COMPLETED", "end_time": "2026-03-01T11:30:00Z", **changes})


def node(key="node1", /, **changes):
    fields = {
        "key": {"id": key},
        "location": "lab",
        "hostname": key,
        "data_interfaces": {"values": [interface()]},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def interface(**changes):
    fields = {
        "name": "ens1f0",
        "mac_address": "0c:42:a1:00:00:01",
        "ip_addresses": {"values": ["10.88.1.1"]},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def objects(response):
    """Split a stream of concatenated JSON objects."""
    decoder, text, found = json.JSONDecoder(), response.text.strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found
