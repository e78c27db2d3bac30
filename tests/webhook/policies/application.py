"""The webhook's Flask application with the policies of a folder, and short policies for it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import jsonpatch
import orjson
from flask.testing import FlaskClient

from generators.tenants.assignment import Requester
from tests.webhook import reviews
from tests.webhook.reviews import ROBOT, JSONObject, decoded, request
from webhook.policies.desk import PolicyDesk
from webhook.serving.app import create_app
from webhook.serving.state import WebhookState, load_state
from webhook.settings import WebhookSettings

FAIL, IGNORE = "/mutate-policies/fail", "/mutate-policies/ignore"


ANY = "match: {any: [{resources: {kinds: [Namespace]}}]}"


def policy(name: str, *rules: str, spec: str = "") -> str:
    """A ClusterPolicy; each rule is the text below its name."""
    listed = "".join(
        f"  - name: rule-{number}\n{textwrap.indent(textwrap.dedent(rule).strip(), '    ')}\n"
        for number, rule in enumerate(rules)
    )
    head = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return (
        f"apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{name: {name}}}\n"
        f"spec:\n{head}\n  rules:\n{listed}"
    )


def labelling(name: str, key: str, value: str, more: str = "", spec: str = "") -> str:
    """A policy that labels every namespace."""
    patch = f"mutate: {{patchStrategicMerge: {{metadata: {{labels: {{{key}: {value}}}}}}}}}"
    return policy(name, f"{ANY}\n{more}\n{patch}", spec=spec)


class Webhook:
    """The application with the policies of a folder."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.folder = files / "policies"
        self.folder.mkdir()
        self.state: WebhookState | None = None

    def write(self, *policies: str, file: str = "all.yaml") -> None:
        (self.folder / file).write_text("---\n".join(policies))

    @property
    def desk(self) -> PolicyDesk:
        assert self.state is not None
        assert self.state.policies is not None
        return self.state.policies

    def client(self) -> FlaskClient:
        if self.state is None:
            pair = (self.files / "tls.crt", self.files / "tls.key")
            settings = WebhookSettings(
                self.files / "tenants.yaml", *pair, policies=(str(self.folder),)
            )
            self.state = load_state(settings)
        self.desk.look()
        return create_app(self.state).test_client()

    def ask(self, asked: JSONObject, path: str = FAIL) -> JSONObject:
        """`response` of the answer."""
        answer = self.client().post(path, data=reviews.body(asked), content_type="application/json")
        assert answer.status_code == 200, answer.text
        response: JSONObject = orjson.loads(answer.data)["response"]
        return response

    def after(self, asked: JSONObject, subject: JSONObject) -> JSONObject:
        """The object after admission."""
        response = self.ask(asked)
        assert response["allowed"], response
        patch = decoded(str(response["patch"])) if "patch" in response else []
        result: JSONObject = jsonpatch.apply_patch(subject, patch)
        return result

    def labels(
        self, subject: JSONObject, path: str = FAIL, by: Requester = ROBOT
    ) -> dict[str, str]:
        """The labels after admission."""
        response = self.ask(request("CREATE", subject, by=by), path)
        assert response["allowed"], response
        patch = decoded(str(response["patch"])) if "patch" in response else []
        result: JSONObject = jsonpatch.apply_patch(subject, patch)
        return reviews.labels(result)


def message(response: JSONObject) -> str:
    status = response["status"]
    assert isinstance(status, dict)
    return str(status["message"])
